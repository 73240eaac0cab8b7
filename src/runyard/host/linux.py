"""The system calls that Python does not offer, each with its errno raised as OSError."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 0x1, 0x2, 0x4, 0x20, 0x1000
MS_REC, MS_PRIVATE, MS_SLAVE = 0x4000, 0x40000, 0x80000
MNT_DETACH = 2

RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x02, 0x04, 0x08
_SYS_OPENAT2, _SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = (
    437,
    428,
    429,
    442,
)  # on every architecture
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_IDMAP = 0x1, 0x2, 0x4, 0x00100000

_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 0x01, 0x02
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 36, 15, 38

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.syscall.restype = ctypes.c_long


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    _checked(_libc.setns(fd, flags), "setns")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str = "") -> None:
    _checked(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() if kind else None,
            flags,
            os.fsencode(data) if data else None,
        ),
        target,
    )


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """A bind mount; with `read_only` it is remounted, keeping away devices and set-uid programs as well."""
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        mount("", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)


def bind_folder(source: str, target: str) -> None:
    """A bind mount in which set-uid programs and devices are none; the source's own noexec stays."""
    mount(source, target, None, MS_BIND | MS_REC)
    flags = MS_NOSUID | MS_NODEV | (os.statvfs(target).f_flag & os.ST_NOEXEC)
    mount("", target, None, MS_BIND | MS_REMOUNT | flags)


def syscall(number: int, *arguments: int | bytes, what: str) -> int:
    """A system call that libc has no name for."""
    words = [ctypes.c_char_p(each) if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *words), what)


def unmount(target: str) -> None:
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


@contextlib.contextmanager
def working_directory(path: str) -> Iterator[None]:
    """For a call that takes relative paths only. Not for a process with threads."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(path)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def openat2(directory_fd: int, path: str, flags: int, *, mode: int = 0, resolve: int) -> int:
    """open(2) with RESOLVE_ flags, relative to an open directory."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    buffer = ctypes.create_string_buffer(how, len(how))
    result = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(directory_fd),
        ctypes.c_char_p(os.fsencode(path)),
        buffer,
        ctypes.c_size_t(len(how)),
    )
    return _checked(result, path)


def punch_hole(fd: int, begin: int, end: int) -> None:
    """Gives the disk space of [begin, end) back; the file keeps its length."""
    flags = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    _checked(_libc.fallocate(fd, flags, begin, end - begin), "fallocate")


def reserve_space(fd: int, size: int) -> None:
    """Takes disk space for the file's first `size` bytes now; the file keeps its length."""
    _checked(_libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE, 0, size), "fallocate")


def sync_file_system(path: str) -> None:
    """Writes out everything of the file system that holds `path`. Blocks, and on a busy disk for long."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _checked(_libc.syncfs(fd), path)
    finally:
        os.close(fd)


def clone_mount(path: str) -> int:
    """A mount of the folder `path` that stands nowhere yet, open. Source: open_tree(2)."""
    at_fdcwd, open_tree_clone = -100, 1
    flags = open_tree_clone | os.O_CLOEXEC
    return syscall(_SYS_OPEN_TREE, at_fdcwd, os.fsencode(path), flags, what=path)


def map_mount(mount_fd: int, user_namespace_fd: int) -> None:
    """Makes a mount that stands nowhere yet show ids on disk as the namespace maps them: nosuid, nodev, read-only.
    Raises EINVAL where the file system cannot. Source: mount_setattr(2)."""
    attributes = struct.pack(
        "QQQQ",
        _MOUNT_ATTR_IDMAP | _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV,
        0,
        0,
        user_namespace_fd,
    )
    at_empty_path = 0x1000
    length = len(attributes)
    syscall(_SYS_MOUNT_SETATTR, mount_fd, b"", at_empty_path, attributes, length, what="mount_setattr")


def attach_mount(mount_fd: int, target: str) -> None:
    """Source: move_mount(2)."""
    from_empty_path, at_fdcwd = 0x4, -100
    syscall(_SYS_MOVE_MOUNT, mount_fd, b"", at_fdcwd, os.fsencode(target), from_empty_path, what=target)


def die_with_parent(signal_number: int) -> None:
    """The kernel sends it when our parent ends. A change of id clears it, so set it last."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def adopt_orphans() -> None:
    """What our descendants leave behind becomes our child, so that nothing gets away by forking twice."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def forbid_new_privileges() -> None:
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def set_process_name(name: str) -> None:
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _libc.prctl(_PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0)


def boottime() -> float:
    """Seconds that only grow, sleep of the machine included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """A name of this boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
