"""A folder seen with other owners: an idmapped mount (Linux 5.12, as an overlay's lower layer 5.19)."""

from __future__ import annotations

import contextlib
import os
import signal

from runyard.host.linux import (
    CLONE_NEWUSER,
    attach_mount,
    clone_mount,
    die_with_parent,
    map_mount,
    unshare,
)


class OtherOwner:
    """What `owner` has, shown as `shown`'s. Made early, it is ready by the time that there is something to mount: the
    user namespace that says so has to be made in a child."""

    def __init__(self, owner: int, shown: int) -> None:
        self._map = f"{owner} {shown} 1\n"
        self._ready, write_end = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                die_with_parent(signal.SIGKILL)
                unshare(CLONE_NEWUSER)
                os.write(write_end, b"x")
                signal.pause()
            finally:
                os._exit(1)
        os.close(write_end)
        self._pidfd = os.pidfd_open(self._pid)  # reaped with orphans, its number may be another's

    def __enter__(self) -> OtherOwner:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ready)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)

    def mount(self, source: str, target: str) -> None:
        """Mounts `source` read-only at `target`. Raises OSError where the kernel or the file system cannot."""
        namespace = self._namespace()
        try:
            tree = clone_mount(source)
            try:
                map_mount(tree, namespace)
                attach_mount(tree, target)
            finally:
                os.close(tree)
        finally:
            os.close(namespace)

    def _namespace(self) -> int:
        if not os.read(self._ready, 1):
            raise OSError(0, "no user namespace can be made", "unshare")
        signal.pidfd_send_signal(self._pidfd, 0)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{self._pid}/{name}", "w") as file:
                file.write(self._map)
        return os.open(f"/proc/{self._pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
