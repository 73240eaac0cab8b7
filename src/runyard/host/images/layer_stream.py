"""A layer's bytes: decompressed, hashed and bounded on their way into the reader of the archive."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import zstandard

PIECE_BYTES = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_MAX = 128 << 20  # what `zstd --long` writes; more would be our memory, not the job's


class LayerRefused(Exception):
    """The layer is corrupt, hostile or too large; the message is for the user. It will never unpack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLimits:
    """Of one layer: bytes unpacked, entries, and how many bytes one packed byte may become once more than
    `ratio_from_bytes` came out (a run of zeros packs a thousandfold, a real layer hardly tenfold)."""

    bytes_max: int = 32 << 30
    entries_max: int = 2_000_000
    ratio_max: int = 200
    ratio_from_bytes: int = 1 << 30


class LayerStream:
    """Reads once, from the beginning to the end. `digest` is that of the unpacked bytes, whole after `drain`."""

    def __init__(self, file: BinaryIO, limits: LayerLimits) -> None:
        self._limits = limits
        self._hash = hashlib.sha256()
        self._packed = _Counted(file)
        self._pieces = self._bounded(_unpacked(self._packed))
        self._buffer = memoryview(b"")
        self.bytes_read = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    @property
    def packed_bytes_read(self) -> int:
        return self._packed.count

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, which the caller has bounded. Raises LayerRefused where the layer ends before."""
        found = bytes(self._take(size))
        while len(found) < size:
            more = self._take(size - len(found))
            if not more:
                raise LayerRefused("the layer ends in the middle of an entry")
            found += more
        return found

    def copy(self, size: int, write: Callable[[memoryview], object]) -> None:
        """Hands exactly `size` bytes on, a piece at a time."""
        while size:
            piece = self._take(size)
            if not piece:
                raise LayerRefused("the layer ends in the middle of a file")
            write(piece)
            size -= len(piece)

    def drain(self) -> None:
        """To the very end, or the digest would not be that of the whole."""
        while self._take(PIECE_BYTES):
            pass

    def _take(self, size: int) -> memoryview:
        if not self._buffer:
            self._buffer = memoryview(next(self._pieces, b""))
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece

    def _bounded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        limits = self._limits
        for piece in pieces:
            self.bytes_read += len(piece)
            if self.bytes_read > limits.bytes_max:
                raise LayerRefused(f"the layer holds more than {limits.bytes_max} bytes")
            if (
                self.bytes_read > limits.ratio_from_bytes
                and self.bytes_read > self._packed.count * limits.ratio_max
            ):
                raise LayerRefused(f"the layer unpacks to more than {limits.ratio_max} times its size")
            self._hash.update(piece)
            yield piece


class _Counted:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0

    def read(self, size: int = PIECE_BYTES) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data


def _unpacked(packed: _Counted) -> Iterator[bytes]:
    """By the first bytes: registries hold layers whose media type says something else than they are."""
    head = packed.read(PIECE_BYTES)
    try:
        if head.startswith(_GZIP):
            yield from _gunzip(head, packed)
        elif head.startswith(_ZSTD):
            yield from _unzstd(head, packed)
        else:
            while head:
                yield head
                head = packed.read()
    except (zlib.error, zstandard.ZstdError) as error:
        raise LayerRefused(f"the layer cannot be decompressed: {error}") from None


def _gunzip(data: bytes, packed: _Counted) -> Iterator[bytes]:
    """One member after the other, as pigz and estargz write them; never more than a piece at once."""
    while data:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not member.eof:
            if not data:
                data = packed.read()
                if not data:
                    raise LayerRefused("the layer ends in the middle of its compression")
            piece = member.decompress(data, PIECE_BYTES)
            data = member.unconsumed_tail
            if piece:
                yield piece
        data = member.unused_data or packed.read()
        if data and not data.startswith(_GZIP[: len(data)]):
            if data.strip(b"\0"):
                raise LayerRefused("bytes follow the layer's compression")
            data = packed.read()


def _unzstd(head: bytes, packed: _Counted) -> Iterator[bytes]:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    with unpacker.stream_reader(cast(BinaryIO, _Rejoined(head, packed)), read_across_frames=True) as reader:
        while piece := reader.read(PIECE_BYTES):
            yield piece


class _Rejoined(io.RawIOBase):
    """The head that was looked at, then the rest."""

    def __init__(self, head: bytes, packed: _Counted) -> None:
        self._head = head
        self._packed = packed

    def readable(self) -> bool:
        return True

    def read(self, size: int = PIECE_BYTES) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._packed.read(size)
