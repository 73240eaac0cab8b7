"""Carries what a step prints from its pipes into the attempt's log files (logs/layout.py).

A byte's offset in the file is its offset in the stream. Once an attempt's streams together used up the head of the
log's budget, each goes on with a moving tail: what lies between is cut out of the file (a hole, so it costs no disk)
and recorded. So a log of any length costs one buffer of memory and bounded disk. Secrets are masked before anything is
written; a stream goes on being masked over the steps, so that one that ends in the next step is found.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from runyard.host.linux import boottime, punch_hole
from runyard.logs import layout
from runyard.logs.masking import Masks, StreamMasker

READ_BYTES = 64 * 1024
TAIL_BYTES_MIN = 4096
LAST_BYTES = 2048
IDLE_S = 0.25


class LogDiskFull(Exception):
    """The file system that holds the logs has no room left."""


class AttemptLog:
    """The budget of one attempt's log, shared by its streams: half for the head, half for tails."""

    def __init__(self, directory: str, bytes_max: int, *, masks: Masks | None = None) -> None:
        self.directory = Path(directory)
        self._masks = masks
        self._maskers: dict[str, StreamMasker] = {}
        self._head_left = bytes_max // 2
        self._tail_left = bytes_max - self._head_left

    def open(self, step: str, stream: str) -> StreamLog:
        """Each stream may keep a quarter of the tail budget that is left, so that later steps still find some."""
        masker = None
        if self._masks is not None:
            masker = self._maskers.setdefault(stream, StreamMasker(self._masks))
        return StreamLog(self, layout.stream_file(self.directory, step, stream), self._tail_left // 4, masker)

    def part(self, bytes_max: int) -> AttemptLog:
        """Of the same attempt, with a budget of its own: for a process beside this one."""
        return AttemptLog(str(self.directory), bytes_max, masks=self._masks)

    def take_head(self, wanted: int) -> int:
        taken = min(wanted, self._head_left)
        self._head_left -= taken
        return taken

    def settle_tail(self, kept: int) -> None:
        self._tail_left = max(0, self._tail_left - kept)


class StreamLog:
    """One stream's file; made when the first byte comes. `last` holds the stream's latest bytes, `idle_at` is when what
    a masker holds back is to be looked at (CLOCK_BOOTTIME), None: never."""

    def __init__(
        self, log: AttemptLog, file: Path, tail_bytes: int, masker: StreamMasker | None = None
    ) -> None:
        self._log = log
        self._file = file
        self._tail_bytes = max(tail_bytes, TAIL_BYTES_MIN)
        self._fd = -1
        self._offset = 0
        self._cut_begin: int | None = None
        self._cut_end = 0
        self._masker = masker
        self.last: bytes = b""
        self.idle_at: float | None = None

    def drain(self, pipe: int) -> bool:
        """Moves one buffer from a pipe that never blocks. False at the end of the stream. The job can read its own
        pipe too: what a poll announced may be gone."""
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return True
        if data:
            self.write(data)
        else:
            self._end()
        return bool(data)

    def write(self, data: bytes) -> None:
        if self._masker is not None:
            data = self._masker.feed(data)
            self.idle_at = boottime() + IDLE_S if self._masker.held_bytes else None
        self._keep(data)

    def show_idle(self, now: float) -> None:
        """Writes what may be shown of what is held back, where nothing came for a while."""
        if self._masker is not None and self.idle_at is not None and now >= self.idle_at:
            self.idle_at = None
            self._keep(self._masker.idle())

    def _end(self) -> None:
        if self._masker is not None:
            self.idle_at = None
            self._keep(self._masker.end())

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        if self._fd < 0:
            self._open()
        try:
            self._write_all(data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LogDiskFull(str(self._file)) from None
            raise
        self.last = (self.last + data)[-LAST_BYTES:]
        self._account(len(data))

    def close(self) -> None:
        with contextlib.suppress(LogDiskFull):
            self._end()
        if self._fd < 0:
            return
        if self._cut_begin is not None:
            self._cut_before(self._offset - self._tail_bytes)
            self._log.settle_tail(self._offset - max(self._cut_end, self._cut_begin))
        os.close(self._fd)
        self._fd = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(self._file, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(self._file.parent, mode=0o700, exist_ok=True)
            self._fd = os.open(self._file, flags, 0o600)
        self._offset = os.fstat(self._fd).st_size

    def _write_all(self, data: bytes) -> None:
        view, offset = memoryview(data), self._offset
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def _account(self, size: int) -> None:
        self._offset += size
        if self._cut_begin is None:
            taken = self._log.take_head(size)
            if taken == size:
                return
            self._cut_begin = self._cut_end = self._offset - size + taken
        if self._offset - self._cut_end >= 2 * self._tail_bytes:  # by halves: each punch is worth its call
            self._cut_before(self._offset - self._tail_bytes)

    def _cut_before(self, end: int) -> None:
        if self._cut_begin is None or end <= self._cut_end:
            return
        layout.write_cut(
            self._file, self._cut_begin, end
        )  # first the word, then the deed: no reader takes a hole for data
        punch_hole(self._fd, self._cut_end, end)
        self._cut_end = end


class Discarded:
    """A stream that is read and not kept but for its end."""

    def __init__(self) -> None:
        self.last: bytes = b""
        self.idle_at: float | None = None

    def drain(self, pipe: int) -> bool:
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return True
        self.last = (self.last + data)[-LAST_BYTES:]
        return bool(data)

    def show_idle(self, now: float) -> None:
        pass

    def close(self) -> None:
        pass
