"""What the layers beneath a layer show at a path, as overlayfs would: the first that has it, unless one hides it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from runyard.host.linux import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Lower:
    """A layer beneath, unpacked: its root, opened, and which of its folders hide what lies under them."""

    fd: int
    opaque: frozenset[str]


@dataclass(frozen=True, slots=True)
class Beneath:
    """Something in a layer beneath; `link` is the text of a symbolic link."""

    layer_fd: int
    path: str
    seen: os.stat_result
    link: str | None


def find_beneath(lowers: Sequence[Lower], path: str) -> Beneath | None:
    """`lowers` from the top down; `path` is resolved: no link is on the way. None where nothing is seen."""
    for lower in lowers:
        try:
            fd = openat2(lower.fd, path, os.O_PATH | os.O_NOFOLLOW, resolve=_RESOLVE)
        except FileNotFoundError:
            if is_hidden(path, lower.opaque):
                return None
            continue
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        try:
            seen = os.fstat(fd)
            if is_whiteout(seen):
                return None
            link = os.readlink("", dir_fd=fd) if stat.S_ISLNK(seen.st_mode) else None
        finally:
            os.close(fd)
        return Beneath(lower.fd, path, seen, link)
    return None


def is_whiteout(seen: os.stat_result) -> bool:
    return stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0


def is_hidden(path: str, opaque: Collection[str]) -> bool:
    """Whether a folder above it hides what lies beneath."""
    if not opaque:
        return False
    while path:
        path = path.rpartition("/")[0]
        if path in opaque:
            return True
    return False
