"""Who an image's processes are: its `User` looked up in its own /etc/passwd and /etc/group.

Both are a stranger's files, so they are opened beneath each layer with no link followed, and read up to a bound.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runyard.host.images.layer_stream import LayerRefused
from runyard.host.images.layer_tree import ID_COUNT
from runyard.host.linux import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_FILE_BYTES_MAX = 1 << 20
_GROUPS_MAX = 64
_DIGITS_MAX = 10
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUser:
    """Ids as the image knows them; `groups` are the further ones."""

    user_id: int = 0
    group_id: int = 0
    groups: tuple[int, ...] = ()


def find_user(user: str, layers: Sequence[Path]) -> ImageUser:
    """`user` is the image's `User`: `name|id[:group|id]`, or empty for root; `layers` from the top down. Raises
    LayerRefused where the image does not know the name."""
    if not user or user in ("0", "root", "0:0", "root:root"):
        return ImageUser()
    name, _, group = user.partition(":")
    users = _table(read_beneath(layers, "etc/passwd"), 4)
    groups = _table(read_beneath(layers, "etc/group"), 3)
    if name.isdecimal():
        user_id = _number(name)
        row = next((row for row in users if row[2] == str(user_id)), None)
    else:
        row = next((row for row in users if row[0] == name), None)
        if row is None:
            raise LayerRefused(f"the image's user {name!r:.80} is not in its /etc/passwd")
        user_id = _id(row[2])
    group_id = _group_id(group, groups) if group else (_id(row[3]) if row else 0)
    further = _further_groups(row[0], groups) if row is not None and not group else ()
    if user_id >= ID_COUNT or group_id >= ID_COUNT:
        raise LayerRefused(f"the image's user {user!r:.80} is beyond the {ID_COUNT} ids that a sandbox has")
    return ImageUser(user_id=user_id, group_id=group_id, groups=further)


def _further_groups(name: str, groups: Sequence[Sequence[str]]) -> tuple[int, ...]:
    found = [
        _number(row[2]) for row in groups if len(row) > 3 and name in row[3].split(",") and row[2].isdecimal()
    ]
    return tuple(sorted({each for each in found if each < ID_COUNT})[:_GROUPS_MAX])


def _group_id(group: str, groups: Sequence[Sequence[str]]) -> int:
    if group.isdecimal():
        return _number(group)
    row = next((row for row in groups if row[0] == group), None)
    if row is None:
        raise LayerRefused(f"the image's group {group!r:.80} is not in its /etc/group")
    return _id(row[2])


def _number(digits: str) -> int:
    """Of however many digits: Python itself reads no more than 4300."""
    return int(digits) if len(digits) <= _DIGITS_MAX else ID_COUNT


def _id(text: str) -> int:
    if not text.isdecimal() or len(text) > _DIGITS_MAX:
        raise LayerRefused(f"the image's /etc/passwd or /etc/group holds {text!r:.40} for an id")
    return int(text)


def _table(data: bytes, columns: int) -> list[list[str]]:
    rows = (line.split(":") for line in data.decode(errors="replace").splitlines())
    return [row for row in rows if len(row) >= columns]


def read_beneath(layers: Sequence[Path], path: str) -> bytes:
    """A file's first megabyte as the stacked layers show it; nothing where it is no plain file."""
    for layer in layers:
        root_fd = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            probe = openat2(root_fd, path, os.O_PATH | os.O_NOFOLLOW, resolve=_RESOLVE)
            is_regular = stat.S_ISREG(os.fstat(probe).st_mode)
            os.close(probe)
            if not is_regular:
                return b""
            fd = openat2(root_fd, path, os.O_RDONLY | os.O_NOFOLLOW, resolve=_RESOLVE)
            with os.fdopen(fd, "rb") as file:
                return file.read(_FILE_BYTES_MAX)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                return b""
            if error.errno != errno.ENOENT:
                raise
        finally:
            os.close(root_fd)
    return b""
