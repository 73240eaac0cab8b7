"""The ids of a sandbox that runs an image: a range of them per slot, as user namespaces (root level only).

A slot owns ID_COUNT host ids from its base on, and id n of an image is `base + n` on the host, so root in the sandbox
is nobody to the host, and no two slots share an id. Standard library only: the shim imports this.
"""

from __future__ import annotations

import os

from runyard.host.linux import CLONE_NEWUSER, unshare

ID_COUNT = 65536
ROOT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
)  # fmt: skip
"""What root in an image holds over the sandbox's own ids: a container's usual set without CAP_MKNOD and
CAP_AUDIT_WRITE, which mean nothing in a user namespace, and CAP_NET_RAW, which only ping asks for."""


def id_base(uid_base: int, slot: int) -> int:
    """The first host id of a slot's range."""
    return uid_base + slot * ID_COUNT


class UserNamespace:
    """A user namespace in which ids 0..65535 are the host's from `base` on. Its owner, a host id of that range, may
    enter it with all rights over it, and nobody else. Begun at once, in a child; `open` waits for it. Needs root."""

    def __init__(self, base: int, owner: int) -> None:
        self._base = base
        self._owner = owner
        self._fd = -1
        self._ready, ready_write = os.pipe2(os.O_CLOEXEC)
        go_read, self._go = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._go)  # or reading its other end would never end
            _hold_namespace(owner, ready_write, go_read)
        os.close(ready_write)
        os.close(go_read)

    def open(self) -> int:
        """Its descriptor, the same each time. Raises OSError."""
        if self._fd < 0:
            self._fd = self._map()
        return self._fd

    def _map(self) -> int:
        try:
            if os.read(self._ready, 1) != b"x":
                raise OSError(f"a user namespace for id {self._owner} could not be made")
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{self._pid}/{name}", "w") as file:
                    file.write(f"0 {self._base} {ID_COUNT}")
            return os.open(f"/proc/{self._pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(self._ready)
            os.close(self._go)
            os.waitpid(self._pid, 0)


def _hold_namespace(owner: int, ready_write: int, go_read: int) -> None:
    """In the child: the namespace lives until it was opened from outside."""
    try:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
        unshare(CLONE_NEWUSER)
        os.write(ready_write, b"x")
        os.read(go_read, 1)
    finally:
        os._exit(0)
