"""Wakes followers when a directory changes: one inotify descriptor for the process, however many follow.

A directory that is not there yet is watched through its nearest ancestor. Only a hint: where inotify cannot be had
(its instances are used up, a network file system), the timer behind every wait still finds what was written.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from pathlib import Path

import structlog

_EVENT_HEADER = struct.Struct("iIII")
_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x2, 0x100, 0x80, 0x400, 0x800
_IN_Q_OVERFLOW, _IN_IGNORED = 0x4000, 0x8000
_MASK = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO | _IN_DELETE_SELF | _IN_MOVE_SELF
_IN_ONLYDIR = 0x01000000
_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger()


class Watch:
    """One follower's interest in one directory. Call `arm` before looking, `wait` after it."""

    def __init__(self, watches: DirectoryWatches, directory: Path) -> None:
        self.directory = directory
        self.armed_at: Path | None = None
        self._watches = watches
        self._changed = asyncio.Event()

    def arm(self) -> None:
        """From here on a change ends the next `wait`."""
        self._changed.clear()
        self._watches.arm(self)

    def poke(self) -> None:
        self._changed.set()

    async def wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        self._watches.disarm(self)


class DirectoryWatches:
    """All watches beneath `root`. Used from one event loop."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._fd: int | None = None
        self._is_unavailable = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watches: dict[Path, set[Watch]] = {}
        self._descriptors: dict[Path, int] = {}
        self._directories: dict[int, Path] = {}

    def watch(self, directory: Path) -> Watch:
        return Watch(self, directory)

    def arm(self, watch: Watch) -> None:
        if watch.armed_at == watch.directory or not self._open():
            return
        candidate = watch.directory
        while not self._add(candidate):
            if candidate in (self._root, candidate.parent):
                return
            candidate = candidate.parent
        if candidate != watch.armed_at:
            self.disarm(watch)
            watch.armed_at = candidate
            self._watches.setdefault(candidate, set()).add(watch)
        if candidate != watch.directory and _child_towards(candidate, watch.directory).exists():
            self.arm(watch)  # made between the two looks

    def disarm(self, watch: Watch) -> None:
        directory, watch.armed_at = watch.armed_at, None
        if directory is None:
            return
        watches = self._watches.get(directory, set())
        watches.discard(watch)
        if not watches:
            self._watches.pop(directory, None)
            descriptor = self._descriptors.pop(directory, None)
            if descriptor is not None and self._fd is not None:
                self._directories.pop(descriptor, None)
                _libc.inotify_rm_watch(self._fd, descriptor)

    def close(self) -> None:
        if self._fd is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = None
        self._watches.clear()
        self._descriptors.clear()
        self._directories.clear()

    def _open(self) -> bool:
        if self._fd is not None or self._is_unavailable:
            return self._fd is not None
        fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            self._is_unavailable = True
            _log.warning("inotify_unavailable", error=os.strerror(ctypes.get_errno()))
            return False
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read_events)
        return True

    def _add(self, directory: Path) -> bool:
        if directory in self._descriptors:
            return True
        descriptor = _libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK | _IN_ONLYDIR)
        if descriptor < 0:
            return False
        self._descriptors[directory] = descriptor
        self._directories[descriptor] = directory
        return True

    def _read_events(self) -> None:
        if self._fd is None:
            return
        try:
            data = os.read(self._fd, 64 * 1024)
        except BlockingIOError:
            return
        offset, touched = 0, set[int]()
        while offset < len(data):
            descriptor, mask, _, length = _EVENT_HEADER.unpack_from(data, offset)
            offset += _EVENT_HEADER.size + length
            if mask & _IN_Q_OVERFLOW:
                touched.update(self._directories)
            touched.add(descriptor)
            if mask & (_IN_IGNORED | _IN_MOVE_SELF):
                self._forget(descriptor)
        for descriptor in touched:
            if (directory := self._directories.get(descriptor)) is not None:
                for watch in tuple(self._watches.get(directory, ())):
                    watch.poke()

    def _forget(self, descriptor: int) -> None:
        """The directory is gone: its followers look again, from the ancestor that is left."""
        directory = self._directories.pop(descriptor, None)
        if directory is None:
            return
        self._descriptors.pop(directory, None)
        for watch in self._watches.pop(directory, set()):
            watch.armed_at = None
            watch.poke()


def _child_towards(ancestor: Path, directory: Path) -> Path:
    return ancestor / directory.relative_to(ancestor).parts[0]
