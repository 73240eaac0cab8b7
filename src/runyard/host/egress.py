"""Network `open` for one program: slirp4netns on the sandbox's own network namespace.

The host's loopback is out of reach (--disable-host-loopback), and so are link-local addresses (cloud metadata), the
host's own addresses and, unless the pool allows them, private ranges: routes in the namespace say so, and the job
has no right to change them. slirp4netns dies with the shim, and is ended after the program. (`network/` is for jobs
that list where they may go.)
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
import select
import signal
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from runyard.host.addresses import ALWAYS_CLOSED, NOT_PUBLIC, connected_networks
from runyard.host.linux import CLONE_NEWNET, CLONE_NEWUSER, boottime, die_with_parent, setns
from runyard.host.plan import Plan
from runyard.host.step import Command

RESOLVER = "10.0.2.3"
RESOLV_CONF = f"nameserver {RESOLVER}\noptions timeout:2\n"
LOOPBACK = "127.0.0.0/8"
SLIRP_NETWORK = ipaddress.IPv4Network("10.0.2.0/24")  # the sandbox's own, whatever lies there on the host
READY_S = 10.0
_RTM_NEWROUTE, _NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE = 24, 0x1, 0x4, 0x400
_RTN_UNREACHABLE, _RTA_DST, _TABLE_MAIN, _PROTOCOL_STATIC = 7, 1, 254, 4
_NS_GET_USERNS = 0xB701
_LOCAL_ADDRESS = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL")


def with_egress(command: Command, plan: Plan, stack: contextlib.ExitStack) -> Command:
    """Holds the command back until its network is up, where it is to have one; `stack` ends that with the program."""
    block = command.block_write
    if block < 0:
        return command
    closed = closed_networks(allow_private=plan.allow_private_addresses, opened=plan.egress.opened)
    egress = Egress(plan.slirp, closed)
    stack.callback(os.close, block)
    stack.callback(egress.close)

    def ready(init_pid: int) -> None:
        egress.attach(init_pid)
        os.write(block, b"x")

    return replace(command, ready=ready)


class NetworkNamespace:
    """A network namespace, held open. Without root also the user namespace that owns it (`user_fd`): bubblewrap may
    have put its process into one further within, from which the network cannot be set up."""

    def __init__(self, net_fd: int) -> None:
        self.net_fd = net_fd
        self.user_fd = -1 if os.geteuid() == 0 else fcntl.ioctl(self.net_fd, _NS_GET_USERNS)

    @classmethod
    def of_process(cls, pid: int) -> NetworkNamespace:
        return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        for fd in (self.net_fd, self.user_fd):
            if fd >= 0:
                os.close(fd)


class Egress:
    """One slirp4netns. `attach` blocks until traffic flows. `has_resolver`: slirp4netns answers for the host's."""

    def __init__(self, slirp: str, closed: Sequence[str], *, has_resolver: bool = True) -> None:
        self._slirp = slirp
        self._closed = closed
        self._has_resolver = has_resolver
        self.pid = 0
        self._pidfd = -1

    def attach(self, init_pid: int) -> None:
        """To the sandbox whose first process that is. Raises OSError saying what failed; the command must then not be
        let go."""
        _await_loopback(init_pid)
        namespaces = NetworkNamespace.of_process(init_pid)
        try:
            self.connect(namespaces)
        finally:
            namespaces.close()

    def connect(self, namespaces: NetworkNamespace) -> None:
        """As `attach`, where loopback is up."""
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = self._start(namespaces, ready_write)
            self._pidfd = os.pidfd_open(self.pid)
            os.close(ready_write)
            ready_write = -1
            self._await_ready(ready_read)
            add_unreachable(namespaces, self._closed)
        finally:
            os.close(ready_read)
            if ready_write >= 0:
                os.close(ready_write)

    def close(self) -> None:
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        self._pidfd = -1

    def _start(self, namespaces: NetworkNamespace, ready_fd: int) -> int:
        arguments = [self._slirp, "--configure", "--mtu=65520", "--disable-host-loopback"]
        arguments += ["--enable-seccomp", f"--ready-fd={ready_fd}", "--netns-type=path"]
        if not self._has_resolver:
            arguments.append("--disable-dns")
        if namespaces.user_fd < 0:
            arguments.append("--enable-sandbox")
        else:  # where its own sandbox would need a group 0 that is not there
            arguments.append(f"--userns-path=/proc/self/fd/{namespaces.user_fd}")
        arguments += [f"/proc/self/fd/{namespaces.net_fd}", "tap0"]
        pid = os.fork()
        if pid == 0:
            try:
                null = os.open("/dev/null", os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                for fd in (ready_fd, namespaces.net_fd, namespaces.user_fd):
                    if fd >= 0:
                        os.set_inheritable(fd, True)
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                die_with_parent(signal.SIGKILL)
                os.execve(self._slirp, arguments, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
            finally:
                os._exit(127)
        return pid

    def _await_ready(self, ready_fd: int) -> None:
        waiting = select.poll()
        waiting.register(ready_fd, select.POLLIN)
        ends_at = boottime() + READY_S
        while boottime() < ends_at:
            if waiting.poll(max(1.0, (ends_at - boottime()) * 1000)):
                if os.read(ready_fd, 1):
                    return
                break
        raise OSError(f"{self._slirp} did not bring the network up")


def _await_loopback(init_pid: int) -> None:
    """Until bubblewrap itself has brought loopback up: slirp4netns would do it too, and bubblewrap fails on that."""
    ends_at = boottime() + READY_S
    while boottime() < ends_at:
        with open(f"/proc/{init_pid}/net/fib_trie") as file:
            if "127.0.0.1" in file.read():
                return
        time.sleep(0.001)
    raise OSError("bubblewrap did not bring loopback up")


def closed_networks(*, allow_private: bool, opened: Sequence[str] = ()) -> list[str]:
    """What the sandbox may not reach: always the clouds' metadata and this host itself; unless private addresses are
    allowed whatever is not public and the networks that this host is connected to. The operator opened networks among
    the latter; of the former only what lies wholly in one of them, for a wide network is not meant to open these."""
    named = [ipaddress.IPv4Network(each) for each in opened]
    always = [ipaddress.IPv4Network(each) for each in (*ALWAYS_CLOSED, *host_addresses())]
    meant = [each for each in named if any(each.subnet_of(network) for network in always)]
    closed = _without(always, meant)
    if not allow_private:
        connected = [each for each in connected_networks() if isinstance(each, ipaddress.IPv4Network)]
        private = [ipaddress.IPv4Network(each) for each in NOT_PUBLIC if each != LOOPBACK]
        private += [each for each in connected if not each.overlaps(SLIRP_NETWORK)]
        closed += _without(private, named)
    return sorted(str(each) for each in set(closed))


def _without(
    networks: Iterable[ipaddress.IPv4Network], opened: Iterable[ipaddress.IPv4Network]
) -> list[ipaddress.IPv4Network]:
    left = list(networks)
    for hole in opened:
        parts: list[ipaddress.IPv4Network] = []
        for network in left:
            if network.supernet_of(hole):
                parts += network.address_exclude(hole)
            elif not network.subnet_of(hole):
                parts.append(network)
        left = parts
    return left


def host_addresses() -> list[str]:
    """This host's own IPv4 addresses, but for loopback."""
    with open("/proc/net/fib_trie") as file:
        found = set(_LOCAL_ADDRESS.findall(file.read()))
    return sorted(f"{address}/32" for address in found if not address.startswith("127."))


def add_unreachable(namespaces: NetworkNamespace, networks: Iterable[str]) -> None:
    """Adds a route `unreachable` for each network in the namespace. A child enters, we stay."""
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            _enter_and_add(namespaces, networks)
        except OSError as error:
            os.write(error_write, str(error).encode())
        finally:
            os._exit(0)
    os.close(error_write)
    with os.fdopen(error_read, "rb") as errors:
        words = errors.read()
    os.waitpid(child, 0)
    if words:
        raise OSError(f"the sandbox's routes could not be set: {words.decode(errors='replace')}")


def _enter_and_add(namespaces: NetworkNamespace, networks: Iterable[str]) -> None:
    if namespaces.user_fd >= 0:
        setns(namespaces.user_fd, CLONE_NEWUSER)
    setns(namespaces.net_fd, CLONE_NEWNET)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        for number, network in enumerate(networks):
            netlink.send(_new_route(ipaddress.IPv4Network(network), number))
            error = struct.unpack_from("=i", netlink.recv(4096), 16)[0]
            if error:
                raise OSError(-error, os.strerror(-error), network)


def _new_route(network: ipaddress.IPv4Network, sequence: int) -> bytes:
    """rtnetlink(7): nlmsghdr, rtmsg, one attribute RTA_DST."""
    route = struct.pack(
        "=BBBBBBBBI",
        socket.AF_INET,
        network.prefixlen,
        0,
        0,
        _TABLE_MAIN,
        _PROTOCOL_STATIC,
        0,
        _RTN_UNREACHABLE,
        0,
    )
    destination = struct.pack("=HH", 8, _RTA_DST) + network.network_address.packed
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE
    length = 16 + len(route) + len(destination)
    return struct.pack("=IHHII", length, _RTM_NEWROUTE, flags, sequence, 0) + route + destination
