"""A folder seen with other owners: an idmapped mount (Linux 5.12, as an overlay's lower layer 5.19)."""

from __future__ import annotations

import contextlib
import os
import signal
import struct

from runyard.host.linux import CLONE_NEWUSER, die_with_parent, syscall, unshare

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same numbers on every architecture
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 0x1, 0o2000000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 0x1, 0x2, 0x4, 0x100000


def mount_idmapped(source: str, target: str, *, owner: int, shown: int) -> None:
    """Mounts `source` read-only at `target`, where what `owner` has is `shown`'s. Raises OSError where the kernel or
    the file system cannot."""
    namespace = _user_namespace(owner, shown)
    try:
        tree = syscall(
            _OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC, what=source
        )
    except OSError:
        os.close(namespace)
        raise
    try:
        attributes = struct.pack(
            "QQQQ", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV | _ATTR_IDMAP, 0, 0, namespace
        )
        syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes), what="mount_setattr")
        syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH, what=target)
    finally:
        os.close(tree)
        os.close(namespace)


def _user_namespace(owner: int, shown: int) -> int:
    """A descriptor of a user namespace that maps the one id to the other. It lives in a child for a moment."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent(signal.SIGKILL)
            unshare(CLONE_NEWUSER)
            os.write(write_end, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(write_end)
    try:
        if not os.read(read_end, 1):
            raise OSError(0, "no user namespace can be made", "unshare")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(f"{owner} {shown} 1\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(read_end)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
