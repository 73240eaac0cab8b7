"""Removes a tree that a job wrote: of any depth, closed or not, never following a link out of it.

No recursion and no long path: one directory is open at a time, and the way back is `..`, believed only if it leads
to the directory that we came from.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PENDING_MAX = 10_000  # names kept of one directory; what is beyond is found by looking again
_LOOKS_MAX = 1_000


@dataclass(slots=True)
class _Level:
    """A directory on the way down: its name in its parent, what it is, and its subdirectories still to remove."""

    name: str
    identity: tuple[int, int]
    looks: int = 0
    pending: list[str] = field(default_factory=list)


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Missing is success. Raises OSError naming what could not be removed. Nothing else may move its directories."""
    parent, name = os.path.split(os.fspath(path))
    try:
        parent_fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_entry(parent_fd, name)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {error.filename or name!r}", os.fspath(path)) from None
    finally:
        os.close(parent_fd)


def remove_entry(parent_fd: int, name: str) -> None:
    """The same for one name in an open directory."""
    if not _unlink(parent_fd, name):
        _Removal(parent_fd, name).run()


class _Removal:
    def __init__(self, parent_fd: int, name: str) -> None:
        self._parent_fd = parent_fd
        self._fd = -1
        self._levels: list[_Level] = []
        self._descend(name)

    def run(self) -> None:
        try:
            while self._levels:
                level = self._levels[-1]
                if not level.pending and not level.looks:
                    self._look(level)
                if level.pending:
                    self._descend(level.pending.pop())
                else:
                    self._leave(level)
        finally:
            if self._fd >= 0:
                os.close(self._fd)

    def _descend(self, name: str) -> None:
        above = self._parent_fd if self._fd < 0 else self._fd
        fd = _open(above, name)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        seen = os.fstat(fd)
        if seen.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(fd, stat.S_IRWXU)
        self._levels.append(_Level(name, (seen.st_dev, seen.st_ino)))

    def _look(self, level: _Level) -> None:
        """Removes what is no directory and notes what is."""
        level.looks += 1
        for name in _unremoved(self._fd):
            level.pending.append(name)
            if len(level.pending) >= _PENDING_MAX:
                break

    def _leave(self, level: _Level) -> None:
        above = self._ascend()
        try:
            os.rmdir(level.name, dir_fd=above)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or level.looks >= _LOOKS_MAX:
                raise
            looks = level.looks
            self._descend(level.name)
            self._levels[-1].looks = looks
            self._look(self._levels[-1])

    def _ascend(self) -> int:
        """The directory above, made current; that of the whole tree is not ours to close."""
        self._levels.pop()
        if not self._levels:
            os.close(self._fd)
            self._fd = -1
            return self._parent_fd
        fd = os.open("..", _DIRECTORY, dir_fd=self._fd)
        os.close(self._fd)
        self._fd = fd
        seen = os.fstat(fd)
        if (seen.st_dev, seen.st_ino) != self._levels[-1].identity:
            raise OSError(errno.ESTALE, "a directory was moved while it was removed", self._levels[-1].name)
        return fd


def _unremoved(directory_fd: int) -> Iterator[str]:
    """The subdirectories; the rest is gone when they are told."""
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) or not _unlink(directory_fd, entry.name):
                yield entry.name


def _unlink(directory_fd: int, name: str) -> bool:
    """False for a directory. Missing is success."""
    try:
        os.unlink(name, dir_fd=directory_fd)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        return False
    return True


def _open(directory_fd: int, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory_fd)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)  # fchmod takes no descriptor of a path
    finally:
        os.close(handle)
    return os.open(name, _DIRECTORY, dir_fd=directory_fd)
