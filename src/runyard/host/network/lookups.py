"""Questions to the name servers outside, each followed to the end of its chain of aliases. One thread, no waiting."""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from runyard.host.network.dns_messages import (
    NOERROR,
    NXDOMAIN,
    SERVFAIL,
    build_question,
    follow_aliases,
    parse_reply,
)

TRY_S = 2.0
TRIES_MAX = 4
ALIASES_MAX = 8
REPLY_BYTES_MAX = 64 * 1024
Server = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`code` NOERROR without addresses: the name is there and has none."""

    code: int
    addresses: tuple[str, ...] = ()
    ttl_s: int = 0


class Lookup:
    """The addresses of one name. `step` goes on when its socket is readable or its time is up."""

    def __init__(self, name: str, servers: Sequence[Server], selector: selectors.BaseSelector) -> None:
        self.name = name
        self._target = name
        self._servers = servers
        self._selector = selector
        self._socket: socket.socket | None = None
        self._number = 0
        self._tries = 0
        self._aliases = 0
        self._ttl_s = 1 << 31
        self.due_at = 0.0

    def begin(self, now: float) -> Found | None:
        return self._ask(now)

    def step(self, now: float) -> Found | None:
        """What was found, or None: wait on."""
        if self._socket is None:
            return self._ask(now)
        try:
            data = self._socket.recv(REPLY_BYTES_MAX)
        except BlockingIOError:
            return None if now < self.due_at else self._ask(now)
        except OSError:  # nobody listens there
            return self._ask(now)
        return self._take(data, now)

    def close(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _take(self, data: bytes, now: float) -> Found | None:
        try:
            reply = parse_reply(data, self._number, self._target)
        except ValueError:
            return None  # forged, or a late one: the true one may still come
        if reply.code not in (NOERROR, NXDOMAIN):
            return self._ask(now)
        end, rows = follow_aliases(reply, self._target)
        if rows:
            ttl_s = min(self._ttl_s, *(ttl_s for _, ttl_s in rows))
            addresses = tuple(dict.fromkeys(address for address, _ in rows))
            return Found(code=NOERROR, addresses=addresses, ttl_s=ttl_s)
        if reply.code == NXDOMAIN or end == self._target or not end:
            return Found(code=reply.code)
        self._aliases += 1
        if self._aliases > ALIASES_MAX:
            return Found(code=SERVFAIL)
        self._ttl_s = min(self._ttl_s, *(ttl_s for _, ttl_s in reply.aliases.values()))
        self._target, self._tries = end, 0
        return self._ask(now)

    def _ask(self, now: float) -> Found | None:
        """The next server, from a port and with a number that nobody can guess."""
        self.close()
        if self._tries >= TRIES_MAX or not self._servers:
            return Found(code=SERVFAIL)
        server = self._servers[self._tries % len(self._servers)]
        self._tries += 1
        self._number = secrets.randbelow(1 << 16)
        self.due_at = now + TRY_S
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        with contextlib.suppress(OSError):
            asking = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._socket = asking
            self._selector.register(asking, selectors.EVENT_READ, self)
            asking.connect(server)
            asking.send(build_question(self._number, self._target))
        return None


def parse_servers(names: Sequence[str]) -> list[Server]:
    """`address`, `address:port` or `[address]:port` each."""
    servers: list[Server] = []
    for name in names:
        host, port = name, "53"
        if name.startswith("["):
            host, _, port = name[1:].partition("]")
            port = port.removeprefix(":") or "53"
        elif name.count(":") == 1:
            host, _, port = name.partition(":")
        servers.append((host, int(port)))
    return servers


def host_servers(path: str = "/etc/resolv.conf") -> list[str]:
    """The name servers that this host asks itself."""
    found = []
    with contextlib.suppress(OSError), open(path) as file:
        for line in file:
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                found.append(f"[{words[1]}]" if ":" in words[1] else words[1])
    return found
