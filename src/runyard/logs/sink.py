"""Writes a log that comes from afar into files: each byte once, by its offset.

Beside a stream's file, `<step>.<stream>.gaps` holds the ranges that never came, one `begin end` a line.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from runyard.logs.layout import STREAMS, stream_file
from runyard.model.errors import Conflict, Invalid

GAPS_SUFFIX = ".gaps"


class FileLogSink:
    """The sink of one attempt. Safe against a second writer of the same attempt: the file is locked while appended."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        if offset < 0:
            raise Invalid(f"no log stream {step!r}.{stream!r} at {offset}")
        await asyncio.to_thread(_append, self._file(step, stream), offset, data)

    async def size(self, step: str, stream: str) -> int:
        return await asyncio.to_thread(_size, self._file(step, stream))

    def _file(self, step: str, stream: str) -> Path:
        if stream not in STREAMS or "/" in step:
            raise Invalid(f"no log stream {step!r}.{stream!r}")
        return stream_file(self._directory, step, stream)


def _size(file: Path) -> int:
    try:
        return os.stat(file, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _append(file: Path, offset: int, data: bytes) -> None:
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        overlap = max(0, min(size - offset, len(data)))
        if overlap and os.pread(fd, overlap, offset) != data[:overlap]:
            raise Conflict(f"{file.name}: other bytes are stored at {offset} already; nothing was changed")
        rest = data[overlap:]
        if not rest:
            return
        if offset > size:
            _record_gap(file, size, offset)
        _write_all(fd, rest, offset + overlap)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _record_gap(file: Path, begin: int, end: int) -> None:
    with (file.parent / (file.name + GAPS_SUFFIX)).open("a") as gaps:
        gaps.write(f"{begin} {end}\n")


def read_gaps(file: Path) -> list[tuple[int, int]]:
    """The [begin, end) ranges that never came, in order. A torn last line is left out."""
    try:
        lines = (file.parent / (file.name + GAPS_SUFFIX)).read_text().splitlines()
    except FileNotFoundError:
        return []
    pairs = (line.split() for line in lines)
    return [
        (int(pair[0]), int(pair[1])) for pair in pairs if len(pair) == 2 and all(map(str.isdecimal, pair))
    ]
