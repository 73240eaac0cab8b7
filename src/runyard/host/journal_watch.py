"""Wakes followers when the journal of an attempt grows: one inotify descriptor for all of them.

Only a hint. A timer stands behind every wait, so where inotify cannot be had nothing is missed, only later seen.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from pathlib import Path

_EVENT_HEADER = struct.Struct("iIII")
_IN_MODIFY, _IN_ONLYDIR, _IN_Q_OVERFLOW = 0x2, 0x01000000, 0x4000
_libc = ctypes.CDLL(None, use_errno=True)


class JournalWatch:
    """One attempt's directory, watched. `changed` is set whenever a file directly in it was written to."""

    def __init__(self, watches: JournalWatches, descriptor: int) -> None:
        self._watches = watches
        self.descriptor = descriptor
        self.changed = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Returns at the next change since the last wait, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.changed.wait()
        except TimeoutError:
            pass
        self.changed.clear()

    def close(self) -> None:
        self._watches.remove(self)


class JournalWatches:
    """Used from one event loop."""

    def __init__(self) -> None:
        self._fd = -1
        self._watches: dict[int, set[JournalWatch]] = {}  # the kernel has one descriptor for a directory

    def add(self, directory: Path) -> JournalWatch:
        descriptor = -1
        if self._open():
            flags = _IN_MODIFY | _IN_ONLYDIR
            descriptor = _libc.inotify_add_watch(self._fd, os.fsencode(directory), flags)
        watch = JournalWatch(self, descriptor)
        if descriptor >= 0:
            self._watches.setdefault(descriptor, set()).add(watch)
        return watch

    def remove(self, watch: JournalWatch) -> None:
        descriptor = watch.descriptor
        watches = self._watches.get(descriptor, set())
        watches.discard(watch)
        if not watches and self._watches.pop(descriptor, None) is not None and self._fd >= 0:
            _libc.inotify_rm_watch(self._fd, descriptor)

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> bool:
        if self._fd < 0:
            self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd >= 0:
                asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self._fd >= 0

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 64 * 1024)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            descriptor, mask, _, length = _EVENT_HEADER.unpack_from(data, offset)
            offset += _EVENT_HEADER.size + length
            touched = list(self._watches) if mask & _IN_Q_OVERFLOW else [descriptor]
            for each in touched:
                for watch in self._watches.get(each, ()):
                    watch.changed.set()
