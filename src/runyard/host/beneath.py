"""Files within a folder that a job wrote, or that a user named: opened without ever following a link out of it."""

from __future__ import annotations

import contextlib
import os
import stat

from runyard.host.linux import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


class UnsafePath(Exception):
    """The path leaves its folder, or is none."""


def path_parts(path: str) -> list[str]:
    """The names of a relative path. Raises UnsafePath for one that is absolute, empty, or holds `..` or NUL."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or not parts or ".." in parts or "\0" in path:
        raise UnsafePath(f"{path!r} is no path within the workspace")
    return parts


def open_regular(directory_fd: int, path: str) -> int:
    """A regular file beneath, for reading. A FIFO or device is never opened. Raises OSError, UnsafePath."""
    path = "/".join(path_parts(path))
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
    probe = openat2(directory_fd, path, os.O_PATH | os.O_NOFOLLOW, resolve=_RESOLVE)
    try:
        if not stat.S_ISREG(os.fstat(probe).st_mode):
            raise UnsafePath(f"{path!r} is not a regular file")
    finally:
        os.close(probe)
    return openat2(directory_fd, path, flags, resolve=_RESOLVE)


def write_file(directory_fd: int, path: str, content: bytes, *, owner: int | None) -> None:
    """Writes a file beneath, with its folders; a link in the way is an error. Missing owner: ours."""
    with os.fdopen(_create(directory_fd, path, _mode(content[:2]), owner), "wb") as file:
        file.write(content)


def copy_file(directory_fd: int, path: str, source_fd: int, *, owner: int | None) -> None:
    """Like `write_file`, with all that an open file holds."""
    fd = _create(directory_fd, path, _mode(os.pread(source_fd, 2, 0)), owner)
    try:
        offset, size = 0, os.fstat(source_fd).st_size
        while offset < size:
            offset += os.sendfile(fd, source_fd, offset, size - offset)
    finally:
        os.close(fd)


def _mode(begin: bytes) -> int:
    return 0o755 if begin == b"#!" else 0o644


def _create(directory_fd: int, path: str, mode: int, owner: int | None) -> int:
    *folders, name = path_parts(path)
    current = os.dup(directory_fd)
    try:
        for folder in folders:
            following = _enter(current, folder, owner)
            os.close(current)
            current = following
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(name, dir_fd=current, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=current)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        fd = openat2(current, name, flags, mode=mode, resolve=_RESOLVE)
        if owner is not None:
            os.fchown(fd, owner, owner)
        return fd
    finally:
        os.close(current)


def _enter(directory_fd: int, name: str, owner: int | None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return openat2(directory_fd, name, flags, resolve=_RESOLVE)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=directory_fd)
        if owner is not None:
            os.chown(name, owner, owner, dir_fd=directory_fd, follow_symlinks=False)
        return openat2(directory_fd, name, flags, resolve=_RESOLVE)
