"""Reads a tar archive as a stream of entries: ustar, GNU long names, pax, sparse files.

An own reader, because every number in it is a stranger's: Python's reads a header of any length into memory. Every
length is bounded before it is read, every header's checksum is checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from runyard.host.images.layer_stream import LayerRefused, LayerStream

_BLOCK = 512
_NAME_BYTES_MAX = 4096 + 1
_PAX_BYTES_MAX = 1 << 20
_SEGMENTS_MAX = 100_000
_SECONDS_MAX = (1 << 33) - 1
_DIGITS_MAX = 1000  # Python reads no more than 4300; zeros may lead
_XATTR = "SCHILY.xattr."
Segments = tuple[tuple[int, int], ...]
"""Where a sparse file has data: (offset, length), in order, not overlapping."""


class Kind(Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard link"
    FIFO = "fifo"
    DEVICE = "device"


@dataclass(slots=True, kw_only=True)
class Entry:
    """`size` is that of the file; `stored` how many bytes follow in the archive (less for a sparse file)."""

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    stored: int
    mtime_ns: int
    link: str = ""
    segments: Segments | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)


_KINDS = {
    b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE,
    b"1": Kind.HARD_LINK, b"2": Kind.SYMLINK, b"3": Kind.DEVICE, b"4": Kind.DEVICE, b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}  # fmt: skip


@dataclass(slots=True)
class _Extended:
    """What headers before an entry say about it."""

    records: dict[str, bytes] = field(default_factory=dict)
    sparse: list[tuple[str, int]] = field(default_factory=list)  # the old form repeats its keys
    name: str | None = None
    link: str | None = None


def entries(stream: LayerStream) -> Iterator[Entry]:
    """Each entry in order. The consumer takes exactly `stored` bytes from the stream before it asks for the next.
    Raises LayerRefused."""
    for_all: dict[str, bytes] = {}
    extended = _Extended()
    while True:
        header = stream.read(_BLOCK)
        if not header.strip(b"\0"):
            return
        _check(header)
        kind = header[156:157]
        if kind in b"LK":
            name = _text(_payload(stream, header, _NAME_BYTES_MAX))
            if kind == b"L":
                extended.name = name
            else:
                extended.link = name
        elif kind == b"x":
            _read_pax(_payload(stream, header, _PAX_BYTES_MAX), extended)
        elif kind == b"g":
            common = _Extended(records=for_all)
            _read_pax(_payload(stream, header, _PAX_BYTES_MAX), common)
        elif kind in _KINDS:
            extended.records = {**for_all, **extended.records} if for_all else extended.records
            entry = _entry(stream, header, _KINDS[kind], extended)
            stored = entry.stored
            yield entry
            stream.read(-stored % _BLOCK)
            extended = _Extended()
        else:
            raise LayerRefused(f"the archive holds an entry of the unknown type {kind!r}")


def _check(header: bytes) -> None:
    blank = sum(header) - sum(header[148:156]) + 8 * 32
    if _number(header[148:156]) != blank:
        raise LayerRefused("the layer is no tar archive: a header's checksum is wrong")


def _number(data: bytes) -> int:
    """Octal, or base 256 with the first bit set."""
    if data[:1] in (b"\x80", b"\xff"):
        value = int.from_bytes(data[1:], "big")
        if data[0] == 0xFF:
            raise LayerRefused("the archive holds a negative number")
        return value
    text = data.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise LayerRefused(f"the archive holds {text[:20]!r} for a number") from None


def _text(data: bytes) -> str:
    return os.fsdecode(data.split(b"\0", 1)[0])


def _payload(stream: LayerStream, header: bytes, bytes_max: int) -> bytes:
    size = _number(header[124:136])
    if size > bytes_max:
        raise LayerRefused(f"the archive holds a header of {size} bytes, {bytes_max} are allowed")
    data = stream.read(size)
    stream.read(-size % _BLOCK)
    return data


def _read_pax(data: bytes, extended: _Extended) -> None:
    """Records of `length key=value\\n`."""
    begin = 0
    while begin < len(data):
        space = data.find(b" ", begin, begin + 12)
        length = int(data[begin:space]) if space > 0 and data[begin:space].isdigit() else 0
        record = data[space + 1 : begin + length]
        key, equals, value = record.partition(b"=")
        if length <= 0 or begin + length > len(data) or not equals or record[-1:] != b"\n":
            raise LayerRefused("the archive holds an extended header that cannot be read")
        name, value = key.decode(errors="replace"), value[:-1]
        if name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            extended.sparse.append((name, _whole(value)))
        extended.records[name] = value
        begin += length


def _whole(value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise LayerRefused(f"the archive holds {value[:24]!r} for a number")
    return int(value)


def _entry(stream: LayerStream, header: bytes, kind: Kind, extended: _Extended) -> Entry:
    records = extended.records
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345]:
        name = f"{_text(header[345:500])}/{name}"
    path = _said(records, "GNU.sparse.name") or _said(records, "path") or extended.name or name
    link = _said(records, "linkpath") or extended.link or _text(header[157:257])
    stored = _whole(records["size"]) if "size" in records else _number(header[124:136])
    if kind is Kind.FILE and path.endswith("/"):
        kind = Kind.DIRECTORY  # as archives before ustar say it
    if kind is not Kind.FILE:
        if kind in (Kind.HARD_LINK, Kind.DIRECTORY, Kind.SYMLINK) and header[156:157] != b"0":
            stored = 0  # some writers name the size of what is linked to
        elif stored:
            raise LayerRefused(f"{path!r}: a {kind.value} with content")
    if "\0" in path or "\0" in link:
        raise LayerRefused("the archive holds a name with a NUL character")
    if len(os.fsencode(path)) >= _NAME_BYTES_MAX or len(os.fsencode(link)) >= _NAME_BYTES_MAX:
        raise LayerRefused("the archive holds a name longer than 4096 bytes")
    entry = Entry(
        path=path,
        kind=kind,
        mode=_number(header[100:108]) & 0o7777,
        uid=_whole(records["uid"]) if "uid" in records else _number(header[108:116]),
        gid=_whole(records["gid"]) if "gid" in records else _number(header[116:124]),
        size=stored,
        stored=stored,
        mtime_ns=_time_ns(records["mtime"])
        if "mtime" in records
        else _time_ns(b"%d" % _number(header[136:148])),
        link=link,
        xattrs={key[len(_XATTR) :]: value for key, value in records.items() if key.startswith(_XATTR)},
    )
    if kind is Kind.FILE:
        _read_sparse(stream, header, extended, entry)
    return entry


def _said(records: dict[str, bytes], key: str) -> str:
    return os.fsdecode(records[key]) if records.get(key) else ""


def _time_ns(value: bytes) -> int:
    """Decimal seconds, as pax has them; before 1970 is taken for 1970, after 2242 for 2242 (what ext4 and xfs hold)."""
    whole, _, fraction = value.partition(b".")
    if whole.startswith(b"-"):
        return 0
    nanoseconds = int((fraction[:9] if fraction.isdigit() else b"").ljust(9, b"0"))
    seconds = (
        int(whole[:_DIGITS_MAX]) if whole.isdigit() else 0
    )  # of more, its beginning is beyond the bound too
    return min(seconds, _SECONDS_MAX) * 10**9 + nanoseconds


def _read_sparse(stream: LayerStream, header: bytes, extended: _Extended, entry: Entry) -> None:
    records = extended.records
    if header[156:157] == b"S":
        entry.segments, entry.size = _old_gnu_segments(stream, header)
    elif records.get("GNU.sparse.major") == b"1":
        entry.segments, taken = _leading_segments(stream, entry.stored)
        entry.stored -= taken
        entry.size = _whole(records.get("GNU.sparse.realsize", b""))
    elif "GNU.sparse.map" in records:
        numbers = [_whole(part) for part in records["GNU.sparse.map"].split(b",") if part]
        entry.segments = tuple(zip(numbers[::2], numbers[1::2], strict=False))
        entry.size = _whole(records.get("GNU.sparse.size", b""))
    elif extended.sparse:
        offsets = [value for name, value in extended.sparse if name == "GNU.sparse.offset"]
        lengths = [value for name, value in extended.sparse if name == "GNU.sparse.numbytes"]
        entry.segments = tuple(zip(offsets, lengths, strict=False))
        entry.size = _whole(records.get("GNU.sparse.size", b""))
    if entry.segments is not None:
        _check_segments(entry, entry.segments)


def _old_gnu_segments(stream: LayerStream, header: bytes) -> tuple[Segments, int]:
    found = _segment_table(header[386:482])
    more = header[482]
    while more:
        block = stream.read(_BLOCK)
        found += _segment_table(block[:504])
        more = block[504]
        if len(found) > _SEGMENTS_MAX:
            raise LayerRefused(f"a sparse file has more than {_SEGMENTS_MAX} parts")
    return tuple(found), _number(header[483:495])


def _segment_table(data: bytes) -> list[tuple[int, int]]:
    rows = [(data[at : at + 12], data[at + 12 : at + 24]) for at in range(0, len(data), 24)]
    return [(_number(offset), _number(length)) for offset, length in rows if length.strip(b"\0 ")]


def _leading_segments(stream: LayerStream, stored: int) -> tuple[Segments, int]:
    """The map stands before the data, in lines, padded to a block."""
    text, taken = b"", 0
    wanted = 1
    while text.count(b"\n") < wanted:
        if taken + _BLOCK > stored or taken > _PAX_BYTES_MAX:
            raise LayerRefused("a sparse file's map cannot be read")
        text += stream.read(_BLOCK)
        taken += _BLOCK
        if wanted == 1 and b"\n" in text:
            count = _whole(text.split(b"\n", 1)[0])
            if count > _SEGMENTS_MAX:
                raise LayerRefused(f"a sparse file has more than {_SEGMENTS_MAX} parts")
            wanted = 1 + 2 * count
    numbers = [_whole(line) for line in text.split(b"\n")[1:wanted]]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True)), taken


def _check_segments(entry: Entry, segments: Segments) -> None:
    at = 0
    for offset, length in segments:
        if offset < at:
            raise LayerRefused(f"{entry.path!r}: the parts of a sparse file overlap")
        at = offset + length
    if at > entry.size or sum(length for _, length in segments) != entry.stored:
        raise LayerRefused(f"{entry.path!r}: the parts of a sparse file do not fit its size")
