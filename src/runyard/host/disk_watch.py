"""What an attempt takes of the disk, looked at while it runs: its limit, its number of files, and the host's floor.

The kernel offers no limit per folder without project quotas (ext4, xfs with prjquota), so the shim looks: at the file
system's free space every second, at the attempt's folders by a walk in slices that take a fiftieth of a core. What
cannot be seen (files deleted but open) is bounded by the floor and, each, by RLIMIT_FSIZE.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from runyard.host.linux import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, boottime, openat2

LOOK_EVERY_S = 1.0
SLICE_S = 0.02
CONFIRM_S = 1.0
SPARED_BYTES = 16 << 20  # an attempt that took less is not to blame for a full disk
_PATH_BYTES_MAX = 4000
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLimits:
    """`bytes_max` and `files_max` are of the attempt, `reserve_bytes` is what must stay free. None is no limit."""

    bytes_max: int | None = None
    files_max: int | None = None
    reserve_bytes: int = 0


class DiskWatch:
    """`check` returns why the attempt must end, or None. `next_at` (CLOCK_BOOTTIME) is when to ask again."""

    def __init__(
        self,
        directory: str,
        folders: Sequence[str],
        limits: DiskLimits,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._directory = directory
        self._folders = folders
        self._limits = limits
        self._clock = clock
        self._walk = Usage(directory, folders)
        self.next_at = clock() + LOOK_EVERY_S

    def check(self) -> str | None:
        now = self._clock()
        if now < self.next_at:
            return None
        self.next_at = now + LOOK_EVERY_S
        try:
            return self._check_free() or self._check_usage()
        except OSError:  # what cannot be looked at now is looked at again
            return None

    def _check_free(self) -> str | None:
        seen = os.statvfs(self._directory)
        free = seen.f_bavail * seen.f_frsize
        if free >= self._limits.reserve_bytes or self._measure().bytes < SPARED_BYTES:
            return None
        reserve = _size(self._limits.reserve_bytes)
        return f"the disk has {_size(free)} free, less than the pool's disk_reserve of {reserve}"

    def _check_usage(self) -> str | None:
        """A walk over a tree that changes may count what is no longer there: what ends an attempt is measured anew."""
        self._walk.go_on(SLICE_S)
        found = self._excess(self._walk)
        if found is not None:
            found = self._excess(self._measure())
        if found is not None or self._walk.is_complete:
            self._walk = Usage(self._directory, self._folders)
        return found

    def _measure(self) -> Usage:
        usage = Usage(self._directory, self._folders)
        usage.go_on(CONFIRM_S)
        return usage

    def _excess(self, usage: Usage) -> str | None:
        limits = self._limits
        if usage.is_too_deep:
            return "has directories nested deeper than a path can name, which cannot be measured"
        if limits.bytes_max is not None and usage.bytes > limits.bytes_max:
            return f"used {_size(usage.bytes)} of disk, more than its limit of {_size(limits.bytes_max)}"
        if limits.files_max is not None and usage.files > limits.files_max:
            return f"made {usage.files} files and folders, more than its limit of {limits.files_max}"
        return None


@dataclass(frozen=True, slots=True)
class _Node:
    """A directory by its name in another, so that paths share what they have in common."""

    above: _Node | None
    name: str
    length: int


class Usage:
    """A walk over folders of a directory, in slices. Counts blocks, and each file once however often it is linked."""

    def __init__(self, directory: str, folders: Sequence[str]) -> None:
        self.bytes = 0
        self.files = 0
        self.is_complete = False
        self.is_too_deep = False
        self._seen: set[int] = set()
        self._steps = self._walk(directory, folders)

    def go_on(self, seconds: float) -> None:
        """Walks for that long, or to the end."""
        ends_at = boottime() + seconds
        for _ in self._steps:
            if boottime() > ends_at:
                return
        self.is_complete = True

    def _walk(self, directory: str, folders: Sequence[str]) -> Iterator[None]:
        root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            device = os.fstat(root_fd).st_dev
            pending = [_Node(None, name, len(name)) for name in folders]
            while pending:
                node = pending.pop()
                with contextlib.suppress(OSError):  # gone or moved meanwhile, or closed to us
                    yield from self._look(root_fd, device, node, pending)
        finally:
            os.close(root_fd)

    def _look(self, root_fd: int, device: int, node: _Node, pending: list[_Node]) -> Iterator[None]:
        fd = openat2(root_fd, _path(node), _DIRECTORY, resolve=_RESOLVE)
        try:
            if os.fstat(fd).st_dev != device:
                return  # an overlay: what it holds lies in folders of its own
            with os.scandir(fd) as entries:
                for entry in entries:
                    yield
                    self._count(entry, node, pending)
        finally:
            os.close(fd)

    def _count(self, entry: os.DirEntry[str], node: _Node, pending: list[_Node]) -> None:
        try:
            seen = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        if seen.st_ino in self._seen:
            return
        self._seen.add(seen.st_ino)
        self.files += 1
        self.bytes += seen.st_blocks * 512
        if entry.is_dir(follow_symlinks=False):
            length = node.length + 1 + len(os.fsencode(entry.name))
            if length > _PATH_BYTES_MAX:
                self.is_too_deep = True
            else:
                pending.append(_Node(node, entry.name, length))


def _path(node: _Node) -> str:
    names: list[str] = []
    current: _Node | None = node
    while current is not None:
        names.append(current.name)
        current = current.above
    return "/".join(reversed(names))


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f}Gi" if size >= 1 << 30 else f"{size / (1 << 20):.1f}Mi"
