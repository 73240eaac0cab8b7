"""Addresses that no job and no fetch for one may reach unless the pool allows it: one table for git and for egress."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path

ALWAYS_CLOSED = ("169.254.0.0/16", "168.63.129.16/32")  # where clouds serve metadata and credentials
NOT_PUBLIC = (  # the IANA special-purpose registry (RFC 6890 and after), multicast and what is reserved
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
    "240.0.0.0/4",
)  # fmt: skip
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_ALWAYS_CLOSED = tuple(map(ipaddress.IPv4Network, ALWAYS_CLOSED))
_METADATA_V6 = ipaddress.IPv6Address("fd00:ec2::254")
_CLOSED_V4 = tuple(map(ipaddress.IPv4Network, (*ALWAYS_CLOSED, *NOT_PUBLIC)))
_PREFIX_MIN = 8  # a tunnel that takes half of all addresses is no subnet
_ROUTES, _ROUTES_V6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_public(address: str, connected: tuple[Network, ...] = ()) -> bool:
    """Whether it is out on the internet, and in none of the host's own `connected` networks. Raises ValueError."""
    parsed = ipaddress.ip_address(address)
    if any(parsed in network for network in connected):
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _CLOSED_V4)
    return parsed in _GLOBAL_V6 and not any(parsed in network for network in _NOT_PUBLIC_V6)


def is_always_closed(address: str) -> bool:
    """Whether it is one that no pool can allow, in whatever form it is written. Raises ValueError."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        if mapped is None:
            return parsed == _METADATA_V6
        parsed = mapped
    return any(parsed in network for network in _ALWAYS_CLOSED)


def connected_networks() -> tuple[Network, ...]:
    """The subnets that this host is itself a part of, by its route tables."""
    return (*_connected_v4(_text(_ROUTES)), *_connected_v6(_text(_ROUTES_V6)))


def _connected_v4(table: str) -> list[Network]:
    """/proc/net/route: interface, destination, gateway, flags, …, mask at 7; hexadecimal in the machine's order."""
    found: list[Network] = []
    for fields in map(str.split, table.splitlines()[1:]):
        destination, gateway, mask = (int(fields[index], 16) for index in (1, 2, 7))
        if mask and not gateway:
            words = [socket.inet_ntoa(struct.pack("=I", value)) for value in (destination, mask)]
            found.append(ipaddress.IPv4Network("/".join(words)))
    return [each for each in found if each.prefixlen >= _PREFIX_MIN]


def _connected_v6(table: str) -> list[Network]:
    """/proc/net/ipv6_route: destination, prefix length, source, its length, next hop, … in hexadecimal."""
    found: list[Network] = []
    for fields in map(str.split, table.splitlines()):
        prefix, has_hop = int(fields[1], 16), int(fields[4], 16) != 0
        if prefix and not has_hop:
            found.append(ipaddress.IPv6Network((int(fields[0], 16), prefix)))
    return [each for each in found if each.prefixlen >= _PREFIX_MIN]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
