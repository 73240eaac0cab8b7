"""The journal of an attempt: what happened, one JSON document a line, only ever appended to.

Written by the shim alone (it holds the lock), each line by one write; read by anyone, from any offset. A last line
without its end of line is torn or still being written: readers leave it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from runyard.host.linux import reserve_space

STARTED, PREPARING, WORKSPACE, PROGRESS = "started", "preparing", "workspace", "progress"
CACHE, CACHE_USE, SERVICES = "cache", "cache_use", "services"
STEP_STARTED, STEP_ENDED, COLLECTING, ENDED = "step_started", "step_ended", "collecting", "ended"
_RESERVED_BYTES = 16 * 1024  # so that the end can be told on a full disk too

Record = dict[str, Any]


class JournalWriter:
    """Each record holds `what` and `at` (epoch seconds). Those buffered go with the next that is written."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._buffered = b""
        self._uses: Counter[tuple[str, str]] = Counter()
        with contextlib.suppress(OSError):  # a file system that cannot reserve still can write
            reserve_space(self._fd, _RESERVED_BYTES)

    def buffer(self, what: str, at: float, **fields: Any) -> None:
        """Keeps it back until the next `write`, to spare followers a wake for what they need not know at once."""
        self._buffered += _line(what, at, fields)

    def write(self, what: str, at: float, **fields: Any) -> None:
        data, self._buffered = self._buffered + _line(what, at, fields), b""
        os.write(self._fd, data)

    def note_use(self, cache: str, result: str, count: int = 1) -> None:
        """Something that is kept between attempts was used, or had to be made: told as the attempt's total so far, so
        that who reads the journal again counts nothing twice."""
        self._uses[cache, result] += count
        self.buffer(CACHE_USE, time.time(), cache=cache, result=result, total=self._uses[cache, result])

    def close(self) -> None:
        os.close(self._fd)


class JournalReader:
    """Reads what came since the last time. Keeps its place by bytes; a missing file is an empty one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Record]:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return []
        try:
            data = b"".join(_chunks(fd, self._offset))
        finally:
            os.close(fd)
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def _chunks(fd: int, offset: int) -> Iterator[bytes]:
    while data := os.pread(fd, 64 * 1024, offset):
        yield data
        offset += len(data)


def _line(what: str, at: float, fields: Record) -> bytes:
    return json.dumps({"what": what, "at": at, **fields}, separators=(",", ":")).encode() + b"\n"
