"""The network of an attempt that lists where it may go or has services: made before its first program, the same for all
of them, gone with its shim. What was refused is told in the attempt's log."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from runyard.host.attempt_directory import AttemptDirectory
from runyard.host.egress import (
    LOOPBACK,
    RESOLV_CONF,
    SLIRP_NETWORK,
    Egress,
    NetworkNamespace,
    closed_networks,
)
from runyard.host.host_tree import GENERATED
from runyard.host.linux import boottime
from runyard.host.network.lookups import host_servers, parse_servers
from runyard.host.network.namespace import AttemptNamespace
from runyard.host.network.packet_filter import PacketFilter, Refused
from runyard.host.network.resolver import Resolver, start_resolver
from runyard.host.plan import NETWORK_ALLOW, NETWORK_NONE, Plan
from runyard.host.services.readiness import read_listeners
from runyard.model.egress import EgressRule, parse_egress_rule

FOLDER = "network"
RESOLVER_ADDRESS = "127.0.0.53"
SAID_MAX = 200
LOOK_EVERY_S = 5.0
_RESOLV_CONF = f"nameserver {RESOLVER_ADDRESS}\noptions timeout:5 attempts:2\n"
Say = Callable[[str], None]


class AttemptNetwork:
    """`start` makes it, `look` says what was refused meanwhile, `close` ends it. Root level only."""

    def __init__(self, plan: Plan, directory: AttemptDirectory, say: Say, *, hosts: str = "") -> None:
        """`hosts` are the lines of /etc/hosts beyond the usual ones."""
        self._plan = plan
        self._hosts = hosts
        self.folder = directory.file(FOLDER)
        self._refusals = _Refusals(say)
        self._say = say
        self._namespace = AttemptNamespace()
        self._filter: PacketFilter | None = None
        self._egress: Egress | None = None
        self._resolver: int | None = None
        self._told = -1
        self._unread = b""
        self._looked_at = 0.0

    def start(self) -> None:
        """Raises OSError saying what could not be made; then nothing may run in it."""
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        if self._hosts:
            self._write("hosts", GENERATED["hosts"] + self._hosts)
        if self._plan.network == NETWORK_NONE:
            return
        egress = self._plan.egress
        closed = closed_networks(allow_private=self._plan.allow_private_addresses, opened=egress.opened)
        lists = self._plan.network == NETWORK_ALLOW
        self._write("resolv.conf", _RESOLV_CONF if lists else RESOLV_CONF)
        if lists:
            self._restrict([parse_egress_rule(each) for each in egress.allow], closed)
        self._egress = Egress(self._plan.slirp, () if lists else closed, has_resolver=not lists)
        self._egress.connect(NetworkNamespace(self._namespace.fd))

    @property
    def join(self) -> Callable[[], None]:
        """For a child that is about to become a program of the attempt."""
        return self._namespace.join

    def listeners(self) -> set[tuple[str, int]]:
        """(address, port) of what accepts in it by TCP."""
        with self._namespace.entered():
            return read_listeners()

    @property
    def companions(self) -> set[int]:
        """Our own processes that serve it."""
        found = {self._resolver, self._egress.pid if self._egress is not None else None}
        return {pid for pid in found if pid}

    def look(self, *, is_last: bool = False) -> None:
        """Says what was refused since the last time. Cheap, where it was called a moment ago."""
        if self._filter is None or self._told < 0:
            return
        self._read_told()
        now = boottime()
        if is_last or now >= self._looked_at + LOOK_EVERY_S:
            self._looked_at = now
            with contextlib.suppress(OSError, ValueError, KeyError, StopIteration):
                for refused in self._filter.refused():
                    self._refusals.connection(refused)

    def close(self) -> None:
        if self._resolver is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._resolver, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._resolver, 0)
            self._resolver = None
        if self._told >= 0:
            os.close(self._told)
            self._told = -1
        if self._egress is not None:
            self._egress.close()
        self._filter = None
        self._namespace.close()

    def _restrict(self, rules: list[EgressRule], closed: list[str]) -> None:
        """Before there is a way out at all."""
        closed = [*closed, str(SLIRP_NETWORK)]
        self._filter = PacketFilter(self._plan.egress.nft, self.join)
        self._filter.load(rules, closed)
        self._warn_of_closed(rules, [ipaddress.IPv4Network(each) for each in closed])
        with self._namespace.entered():
            listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            listening.bind((RESOLVER_ADDRESS, 53))
        networks = [ipaddress.IPv4Network(each) for each in (*closed, LOOPBACK)]
        servers = parse_servers(self._plan.egress.nameservers or host_servers())
        packet_filter = self._filter

        def serve(tell: Callable[[dict[str, object]], None]) -> None:
            Resolver(listening, rules, networks, servers, packet_filter, tell).run()

        self._resolver, self._told = start_resolver(serve)
        listening.close()

    def _write(self, name: str, text: str) -> None:
        with open(f"{self.folder}/{name}", "w") as file:
            file.write(text)
        os.chmod(f"{self.folder}/{name}", 0o644)

    def _warn_of_closed(self, rules: list[EgressRule], closed: list[ipaddress.IPv4Network]) -> None:
        for rule in rules:
            if rule.network is not None and any(rule.network.subnet_of(each) for each in closed):
                self._say(
                    f"network: {rule.network} is listed, and stays closed: the pool keeps private addresses, its host"
                    " and metadata out of reach (its operator can open a network: egress_networks)"
                )

    def _read_told(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._told, 64 * 1024):
                self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            self._refusals.name(json.loads(line))


class _Refusals:
    """Each in words, once, and SAID_MAX of them at most."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said: set[str] = set()
        self._names: dict[str, str] = {}

    def name(self, told: dict[str, Any]) -> None:
        name = told["name"]
        if "opened" in told:
            self._names |= dict.fromkeys(told["opened"], name)
        elif "closed" in told:
            self._once(f"network: {name} leads to {told['closed']}, which the pool keeps closed")
        elif "unanswered" in told:
            self._once(f"network: {name} is listed, but no name server of the pool could look it up")
        elif "error" in told:
            self._once(f"network: {name} could not be opened: {told['error']}")
        else:
            self._once(f"network: the name {name or '.'!r:.260} was refused: it is not in network.allow")

    def connection(self, refused: Refused) -> None:
        name = self._names.get(refused.address)
        of = f" ({name})" if name else ""
        self._once(
            f"network: {refused.protocol} to {refused.address}:{refused.port}{of} was refused: it is not in"
            " network.allow, or the pool keeps it closed"
        )

    def _once(self, words: str) -> None:
        if words in self._said or len(self._said) > SAID_MAX:
            return
        self._said.add(words)
        self._say(
            words if len(self._said) <= SAID_MAX else "network: more was refused; it is not told any more"
        )
