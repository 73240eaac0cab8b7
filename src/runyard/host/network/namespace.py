"""A network namespace of an attempt's own, in which all its steps and services run.

Made by root, so it belongs to the host's user namespace: no process of the job has any right over it, also not one that
is root in its image.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from runyard.host.linux import CLONE_NEWNET, setns, unshare

_OWN = "/proc/self/ns/net"
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_LOWEST_PORT = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


class AttemptNamespace:
    """Held open by a descriptor: it goes with the last process in it, once that is closed. Root level only."""

    def __init__(self) -> None:
        with _returning():
            unshare(CLONE_NEWNET)
            self.fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
            _raise_loopback()
            with contextlib.suppress(OSError):  # /proc/sys may be read-only: then ports begin at 1024
                _write(
                    _LOWEST_PORT, "0"
                )  # who is root in an image has no right here, and serves port 80 all the same

    def join(self) -> None:
        """Moves this process in, for good."""
        setns(self.fd, CLONE_NEWNET)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """For as long as it takes to open a socket in it. Not for a process with threads."""
        with _returning():
            self.join()
            yield

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextlib.contextmanager
def _returning() -> Iterator[None]:
    before = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        setns(before, CLONE_NEWNET)
        os.close(before)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))  # netdevice(7): ifreq


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
