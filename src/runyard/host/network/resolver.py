"""The resolver of an attempt that lists where it may go: a process of its own beside slirp4netns.

It answers in the attempt's namespace and asks outside of it, and only for names that are listed, so no other name
leaves the host. What it answers it opens in the packet filter first, for as long as the answer holds; an address that
the pool keeps closed is neither answered nor opened, whoever's name leads there. It tells its shim what it did, a JSON
line each, and ends with it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import selectors
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runyard.host.linux import boottime, die_with_parent, set_process_name
from runyard.host.network.dns_messages import (
    ADDRESSES_MAX,
    NOERROR,
    NXDOMAIN,
    SERVFAIL,
    A,
    Query,
    build_answer,
    parse_query,
)
from runyard.host.network.lookups import Found, Lookup, Server
from runyard.host.network.packet_filter import PacketFilter
from runyard.model.egress import EgressRule, ports_of

OPEN_S_MIN, OPEN_S_MAX, OPEN_MARGIN_S = 60, 86_400, 30
"""An answer is open for its TTL, at least so long, and a little longer: who was told an address late in its time has
yet to connect to it."""
NOT_FOUND_S = 5
LOOKUPS_MAX = 64
ASKERS_MAX = (
    64  # of each: a job could ask for ever while a name server is slow; who gets no answer asks again
)
CACHE_MAX = 2000
QUERY_BYTES_MAX = 1500
TELL_MAX = 200  # lines; a job could ask for other names for ever


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A lookup on its way and who asked for it."""

    lookup: Lookup
    askers: list[tuple[Query, tuple[str, int]]] = field(default_factory=list)


class Resolver:
    """`listening` is a UDP socket in the attempt's namespace; `tell` gets each line once."""

    def __init__(
        self,
        listening: socket.socket,
        rules: Sequence[EgressRule],
        closed: Sequence[ipaddress.IPv4Network],
        servers: Sequence[Server],
        packet_filter: PacketFilter,
        tell: Callable[[dict[str, object]], None],
    ) -> None:
        self._listening = listening
        self._rules = rules
        self._closed = closed
        self._servers = servers
        self._filter = packet_filter
        self._tell = tell
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._waiting: dict[str, _Waiting] = {}
        self._cache: dict[str, tuple[Found, float]] = {}

    def run(self) -> None:
        while True:
            self.turn()

    def turn(self) -> None:
        """Waits for what comes next and carries it out."""
        due = min((each.lookup.due_at for each in self._waiting.values()), default=None)
        timeout_s = None if due is None else max(0.0, due - boottime())
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listening:
                self._take_query()
            elif isinstance(key.data, Lookup):
                self._go_on(key.data)
        now = boottime()
        for waiting in [each for each in self._waiting.values() if each.lookup.due_at <= now]:
            self._go_on(waiting.lookup)

    def _take_query(self) -> None:
        try:
            data, asker = self._listening.recvfrom(QUERY_BYTES_MAX)
            query = parse_query(data)
        except (OSError, ValueError):
            return
        ports = ports_of(self._rules, query.name)
        if ports is not None and not ports:
            self._tell({"name": query.name})
            self._answer(query, asker, Found(code=NXDOMAIN))
        elif query.kind != A:
            self._answer(query, asker, Found(code=NOERROR))  # there is no IPv6, and nothing else is looked up
        else:
            self._look_up(query, asker)

    def _look_up(self, query: Query, asker: tuple[str, int]) -> None:
        now = boottime()
        found, until = self._cache.get(query.name, (None, 0.0))
        if found is not None and now < until:
            left = Found(code=found.code, addresses=found.addresses, ttl_s=int(until - now))
            self._answer(query, asker, left)
        elif query.name in self._waiting:
            askers = self._waiting[query.name].askers
            if len(askers) < ASKERS_MAX:
                askers.append((query, asker))
        elif len(self._waiting) >= LOOKUPS_MAX:
            self._answer(query, asker, Found(code=SERVFAIL))
        else:
            lookup = Lookup(query.name, self._servers, self._selector)
            self._waiting[query.name] = _Waiting(lookup=lookup, askers=[(query, asker)])
            self._settle(lookup, lookup.begin(now))

    def _go_on(self, lookup: Lookup) -> None:
        if lookup.name in self._waiting:
            self._settle(lookup, lookup.step(boottime()))

    def _settle(self, lookup: Lookup, found: Found | None) -> None:
        if found is None:
            return
        lookup.close()
        waiting = self._waiting.pop(lookup.name)
        if found.addresses:
            found = self._open(lookup.name, found)
        elif found.code == SERVFAIL:
            self._tell({"name": lookup.name, "unanswered": True})
        self._keep(lookup.name, found)
        for query, asker in waiting.askers:
            self._answer(query, asker, found)

    def _open(self, name: str, found: Found) -> Found:
        """The addresses that may be reached, once they are."""
        parsed = [ipaddress.IPv4Address(address) for address in found.addresses]
        closed = [each for each in parsed if any(each in network for network in self._closed)]
        open_ = tuple(str(each) for each in parsed if each not in closed)[:ADDRESSES_MAX]
        for address in closed:
            self._tell({"name": name, "closed": str(address)})
        if not open_:
            return Found(code=NXDOMAIN)
        for_s = min(max(found.ttl_s, OPEN_S_MIN), OPEN_S_MAX) + OPEN_MARGIN_S
        try:
            self._filter.open(open_, ports_of(self._rules, name), for_s=for_s)
        except OSError as error:
            self._tell({"name": name, "error": str(error)})
            return Found(code=SERVFAIL)
        self._tell({"name": name, "opened": open_})
        return Found(code=NOERROR, addresses=open_, ttl_s=min(found.ttl_s, OPEN_S_MAX))

    def _keep(self, name: str, found: Found) -> None:
        if found.code == SERVFAIL:
            return
        while len(self._cache) >= CACHE_MAX:
            del self._cache[next(iter(self._cache))]
        self._cache[name] = (found, boottime() + max(found.ttl_s, NOT_FOUND_S))

    def _answer(self, query: Query, asker: tuple[str, int], found: Found) -> None:
        with contextlib.suppress(OSError):
            self._listening.sendto(build_answer(query, found.code, found.addresses, found.ttl_s), asker)


class Teller:
    """Lines to the shim, each once and TELL_MAX in all; what does not fit into the pipe is left out. The shim is woken
    as by a request to stop, of which it then finds none."""

    def __init__(self, pipe: int, shim: int) -> None:
        self._pipe = pipe
        self._shim = shim
        self._told: set[bytes] = set()

    def __call__(self, document: dict[str, object]) -> None:
        line = json.dumps(document).encode() + b"\n"
        if line in self._told or len(self._told) >= TELL_MAX:
            return
        self._told.add(line)
        with contextlib.suppress(OSError):
            os.write(self._pipe, line)
            os.kill(self._shim, signal.SIGTERM)


def start_resolver(serve: Callable[[Callable[[dict[str, object]], None]], None]) -> tuple[int, int]:
    """Forks the process that runs `serve(tell)` until we end. Its number, and a pipe with what it tells."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    shim = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            die_with_parent(signal.SIGKILL)
            set_process_name("runyard-resolve")
            os.close(read_end)
            serve(Teller(write_end, shim))
        finally:
            os._exit(1)
    os.close(write_end)
    return pid, read_end
