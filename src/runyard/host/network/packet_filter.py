"""What may leave an attempt's network namespace, as an nftables ruleset in it.

Everything is refused at once (as by a router: `No route to host`) but loopback, the listed networks, and the addresses
that the resolver opened. What is closed stays closed, whatever is listed. IPv6 is closed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from runyard.host.linux import CLONE_NEWNET, die_with_parent, unshare
from runyard.model.egress import EgressRule

NFT_S = 10
REFUSED_MAX = 256
NAMED_MAX = 16_384
"""Addresses that names have open at once: whoever owns one below a star could name new ones for ever, each for a day,
in the kernel's memory."""
_TABLE = "inet runyard"
_PORTS = "meta l4proto { tcp, udp }"


@dataclass(frozen=True, slots=True)
class Refused:
    """A way out that somebody tried."""

    address: str
    protocol: str
    port: int


class PacketFilter:
    """The ruleset of one namespace; `join` moves a child of ours into it."""

    def __init__(self, nft: str, join: Callable[[], None]) -> None:
        self._nft = nft
        self._join = join

    def load(self, rules: Sequence[EgressRule], closed: Iterable[str]) -> None:
        """Raises OSError with nft's words."""
        self._run(ruleset(rules, closed))

    def open(self, addresses: Sequence[str], ports: frozenset[int] | None, *, for_s: int) -> None:
        """Lets each address be reached from now on, for `for_s` seconds; ports None is all of them. Raises OSError."""
        if ports is None:
            elements, name = list(addresses), "named"
        else:
            elements = [f"{address} . {port}" for address in addresses for port in sorted(ports)]
            name = "named_ports"
        bare, timed = ", ".join(elements), ", ".join(f"{each} timeout {for_s}s" for each in elements)
        lines = [  # to add what is there does not put its end off; the three are one transaction
            f"add element {_TABLE} {name} {{ {bare} }}",
            f"delete element {_TABLE} {name} {{ {bare} }}",
            f"add element {_TABLE} {name} {{ {timed} }}",
        ]
        self._run("\n".join(lines) + "\n")

    def refused(self) -> list[Refused]:
        """What was refused so far, each once, at most REFUSED_MAX of them. Raises OSError."""
        document = json.loads(self._run("", "-j", "list", "set", *_TABLE.split(), "refused"))
        found = next(each["set"] for each in document["nftables"] if "set" in each)
        rows = (each["concat"] for each in found.get("elem", ()))
        return [Refused(str(row[0]), str(row[1]), int(row[2])) for row in rows]

    def _run(self, script: str, *arguments: str) -> str:
        return run_nft(self._nft, arguments or ("-f", "-"), script, self._join)


def ruleset(rules: Sequence[EgressRule], closed: Iterable[str]) -> str:
    """Pure. The sets that `open` fills are empty. Replies pass for as long as their connection lives, also when the
    time of a name is over."""
    by_port: dict[int | None, list[ipaddress.IPv4Network]] = {}
    for rule in rules:
        if rule.network is not None:
            by_port.setdefault(rule.port, []).append(rule.network)
    listed = [
        f"{_PORTS}{'' if port is None else f' th dport {port}'} ip daddr {{ {_join(networks)} }} accept"
        for port, networks in sorted(by_port.items(), key=lambda each: each[0] or 0)
    ]
    return "\n".join(
        [
            f"table {_TABLE} {{",
            f"set named {{ type ipv4_addr; flags timeout; size {NAMED_MAX}; }}",
            f"set named_ports {{ type ipv4_addr . inet_service; flags timeout; size {NAMED_MAX}; }}",
            f"set refused {{ type ipv4_addr . inet_proto . inet_service; flags dynamic; size {REFUSED_MAX}; }}",
            "chain out {",
            "type filter hook output priority filter; policy drop;",
            'oifname "lo" accept',
            "meta nfproto ipv6 reject with icmpv6 type admin-prohibited",
            "ct state established,related accept",
            f"ip daddr {{ {_join(map(ipaddress.IPv4Network, closed))} }} jump refuse",
            *listed,
            f"{_PORTS} ip daddr @named accept",
            f"{_PORTS} ip daddr . th dport @named_ports accept",
            "jump refuse",
            "}",
            "chain refuse {",
            f"{_PORTS} add @refused {{ ip daddr . meta l4proto . th dport }}",
            "reject with icmpx type admin-prohibited",
            "}",
            "}",
            "",
        ]
    )


def probe_filter(nft: str | None) -> str:
    """Why a ruleset cannot be had on this host; empty where it can. A trial in a namespace of its own. Needs root."""
    if nft is None:
        return "nft was not found"
    try:
        run_nft(nft, ("-f", "-"), ruleset((), ("192.0.2.0/24",)), lambda: unshare(CLONE_NEWNET))
    except OSError as error:
        return str(error)
    return ""


def run_nft(nft: str, arguments: Sequence[str], script: str, join: Callable[[], None]) -> str:
    """What nft printed, run by a child that `join` put in its place. Raises OSError with its words."""
    script_fd, output_fd = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("script", "output"))
    try:
        os.write(script_fd, script.encode())
        os.lseek(script_fd, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            _become_nft([nft, *arguments], script_fd, output_fd, join)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output = os.pread(output_fd, os.fstat(output_fd).st_size, 0).decode(errors="replace")
    finally:
        os.close(script_fd)
        os.close(output_fd)
    if status != 0:
        raise OSError(f"{nft}: {output.strip()[:500] or f'ended with {status}'}")
    return output


def _become_nft(argv: Sequence[str], script_fd: int, output_fd: int, join: Callable[[], None]) -> None:
    try:
        join()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(script_fd, 0)
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        die_with_parent(signal.SIGKILL)
        signal.alarm(NFT_S)  # outlives the exec: whoever waits for it is not kept for ever
        os.execve(argv[0], list(argv), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(output_fd, f"{argv[0]} could not be started: {error}".encode())
    finally:
        os._exit(127)


def _join(networks: Iterable[ipaddress.IPv4Network]) -> str:
    """nft refuses intervals that overlap."""
    return ", ".join(str(each) for each in ipaddress.collapse_addresses(networks))
