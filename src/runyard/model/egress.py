"""What a job lists in `network.allow`: names and IPv4 networks, each with or without one port."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

NETWORK_NONE, NETWORK_OPEN, NETWORK_ALLOW = "none", "open", "allow"
"""The words of `network`; the last stands for a list."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NAME_MAX = 253
_HOW = "write a name, *.a.name or an IPv4 network, with :port where only one shall be open"


@dataclass(frozen=True, slots=True)
class EgressRule:
    """One entry: a `name` in lower case (`*.` at its beginning stands for every name beneath, at any depth, and not for
    the name itself) or a `network`. `port` None is every port. TCP and UDP alike."""

    name: str | None = None
    network: ipaddress.IPv4Network | None = None
    port: int | None = None

    def covers_name(self, name: str) -> bool:
        """`name` in lower case, without a dot at its end."""
        if self.name is None:
            return False
        if self.name.startswith("*."):
            return name.endswith(self.name[1:]) and len(name) >= len(self.name)
        return name == self.name


def parse_egress_rule(text: str) -> EgressRule:
    """Raises ValueError whose words name the entry and the cure."""
    place, colon, port_text = text.strip().lower().partition(":")
    if ":" in port_text or place.startswith("["):
        raise ValueError(f"{text!r:.120}: IPv6 cannot be listed, it stays closed; {_HOW}")
    port = None
    if colon:
        if not (port_text.isascii() and port_text.isdecimal()) or not 1 <= int(port_text[:6]) <= 65535:
            raise ValueError(f"{text!r:.120}: a port is a number from 1 to 65535")
        port = int(port_text)
    if place.replace(".", "").replace("/", "").isdecimal():
        return EgressRule(network=_network(place, text), port=port)
    return EgressRule(name=_name(place.removesuffix("."), text), port=port)


def ports_of(rules: Iterable[EgressRule], name: str) -> frozenset[int] | None:
    """The ports that are open at `name`: None is all of them, empty is that it is not listed."""
    ports = [rule.port for rule in rules if rule.covers_name(name)]
    return None if None in ports else frozenset(port for port in ports if port is not None)


def _network(place: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(place)
    except ValueError as error:
        raise ValueError(f"{text!r:.120}: {error}; write it like 192.0.2.0/24 or 192.0.2.7") from None


def _name(place: str, text: str) -> str:
    labels = place.removeprefix("*.").split(".")
    if place.startswith("*.") and len(labels) < 2:
        raise ValueError(f"{text!r:.120}: a star needs two labels after it, like *.example.com")
    if "*" in place.removeprefix("*."):
        raise ValueError(f"{text!r:.120}: a star stands at the beginning, before a dot; {_HOW}")
    if len(place) > _NAME_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r:.120}: it is no host name; {_HOW}")
    return place
