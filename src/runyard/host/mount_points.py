"""Makes the mount points of a sandbox's root ourselves, never following a link.

bubblewrap before 0.12 follows links in the new root while it makes mount points (CVE-2026-87766): an image, or an
earlier step, that leaves `/tmp -> /oldroot/…` would have it make files on the host. So every mount point is made, or
found to be a plain directory or file, beneath an open directory (openat2 with RESOLVE_BENEATH and
RESOLVE_NO_SYMLINKS) before each start; no process of the job lives between this look and the mount.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable

from runyard.host.linux import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class HostileRoot(Exception):
    """The root holds something at a mount point that would lead elsewhere. Nothing was mounted."""


def prepare(
    root: str,
    *,
    directories: Iterable[str] = (),
    files: Iterable[str] = (),
    owner: int | None = None,
    replaces_links: bool = False,
) -> None:
    """Sees to it that each path (absolute, as the job sees it) is a directory or a regular file within `root`.

    Missing ones are made, and are `owner`'s. A link that stands for a file is replaced with `replaces_links`: images
    have them (resolv.conf -> …/stub-resolv.conf), and the root must be a copy of the attempt's own. Raises HostileRoot
    naming the path where anything else stands in the way.
    """
    root_fd = os.open(root, _DIRECTORY)
    try:
        for path in directories:
            os.close(_open_directory(root_fd, path, owner))
        for path in files:
            _ensure_file(root_fd, path, owner, replaces_links=replaces_links)
    finally:
        os.close(root_fd)


def _open_directory(root_fd: int, path: str, owner: int | None) -> int:
    """The directory, opened; made with its parents where missing."""
    names = [name for name in path.split("/") if name]
    if ".." in names or not path.startswith("/"):
        raise HostileRoot(f"{path} is no plain absolute path")
    current = os.dup(root_fd)
    try:
        for index, name in enumerate(names):
            following = _enter(current, name, "/" + "/".join(names[: index + 1]), owner)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current


def _enter(directory_fd: int, name: str, shown: str, owner: int | None) -> int:
    try:
        return openat2(directory_fd, name, _DIRECTORY, resolve=_RESOLVE)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=directory_fd)
        if owner is not None:
            os.chown(name, owner, owner, dir_fd=directory_fd, follow_symlinks=False)
        return openat2(directory_fd, name, _DIRECTORY, resolve=_RESOLVE)
    except OSError as error:
        raise _hostile(directory_fd, name, shown, error) from None


def _ensure_file(root_fd: int, path: str, owner: int | None, *, replaces_links: bool) -> None:
    parent, _, name = path.rpartition("/")
    directory_fd = _open_directory(root_fd, parent or "/", owner)
    try:
        if replaces_links:
            _remove_link(directory_fd, name)
        flags = os.O_PATH | os.O_NOFOLLOW
        try:
            fd = openat2(directory_fd, name, flags, resolve=_RESOLVE)
        except FileNotFoundError:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            fd = openat2(directory_fd, name, flags, mode=0o644, resolve=_RESOLVE)
        except OSError as error:
            raise _hostile(directory_fd, name, path, error) from None
        is_regular = stat.S_ISREG(os.fstat(fd).st_mode)
        os.close(fd)
        if not is_regular:
            raise HostileRoot(
                f"{path} in the root is not a regular file; it is a place that Runyard mounts on"
            )
    finally:
        os.close(directory_fd)


def _remove_link(directory_fd: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=directory_fd)


def _hostile(directory_fd: int, name: str, shown: str, error: OSError) -> Exception:
    if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
        return error
    try:
        where = f" -> {os.readlink(name, dir_fd=directory_fd)}"
    except OSError:
        where = ""
    return HostileRoot(
        f"{shown}{where} in the root is not a plain directory; it is a place that Runyard mounts on"
    )
