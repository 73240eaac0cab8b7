"""Which TCP ports accept in a network namespace, read from the kernel's own table: nobody is connected to, so no
service finds a client in its log that said nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable

TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
_LISTEN = "0A"
_ANY = frozenset(("0.0.0.0", "::"))


def parse_listeners(table: str) -> set[tuple[str, int]]:
    """(address, port) of what listens, from /proc/net/tcp or tcp6 (Linux: Documentation/networking/proc_net_tcp)."""
    found = set()
    for fields in map(str.split, table.splitlines()[1:]):
        if len(fields) > 3 and fields[3] == _LISTEN:
            address, _, port = fields[1].partition(":")
            found.add((_address(address), int(port, 16)))
    return found


def missing_ports(
    listeners: Iterable[tuple[str, int]], address: str, ports: Iterable[int]
) -> tuple[int, ...]:
    """Those of `ports` at which nothing accepts that comes to `address`."""
    accepting = {port for where, port in listeners if where in _ANY or where == address}
    return tuple(port for port in ports if port not in accepting)


def read_listeners() -> set[tuple[str, int]]:
    """Of the namespace that we are in."""
    found: set[tuple[str, int]] = set()
    for table in TABLES:
        with contextlib.suppress(OSError), open(table) as file:
            found |= parse_listeners(file.read())
    return found


def _address(text: str) -> str:
    """Hexadecimal, each 32 bits in the machine's order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    data = struct.pack(f"={len(words)}I", *words)
    address = socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)
    return address.removeprefix("::ffff:") if "." in address else address
