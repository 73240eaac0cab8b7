"""Which ports of a service accept, seen from the namespace of its attempt's pause: nobody is connected to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runyard.host.services.readiness import missing_ports, parse_listeners
from runyard.providers.docker.client import DockerClient
from runyard.providers.docker.plan import BIN

_ASK_S = 10.0
_TABLES = ("net/tcp", "net/tcp6")


class Listeners:
    """Reads the kernel's own table: as a file where the daemon is on this host, else by a process within."""

    def __init__(self, client: DockerClient, pause: str) -> None:
        self._client = client
        self._pause = pause
        self._process: Path | None = None
        self._is_near = client.host.startswith("unix://")

    async def missing(self, address: str, ports: Sequence[int]) -> tuple[int, ...]:
        """Those at which nothing accepts that comes to the address. Raises Refused where the pause is gone."""
        if not ports:
            return ()
        if self._is_near:
            found = await self._read()
            if found is not None:
                return missing_ports(found, address, ports)
            self._is_near = False
        return tuple([port for port in ports if not await self._accepts(address, port)])

    async def _read(self) -> set[tuple[str, int]] | None:
        """None: the process is none of this host's, or not for us to look at."""
        try:
            if self._process is None:
                self._process = await self._find_process()
            if self._process is None:
                return None
            return set().union(*(parse_listeners((self._process / name).read_text()) for name in _TABLES))
        except OSError:
            return None

    async def _find_process(self) -> Path | None:
        """A socket on this host may lead to a daemon in a machine of its own, whose ids mean others here."""
        seen = await self._client.inspect_container(self._pause)
        if seen is None:
            return None
        process = Path(f"/proc/{seen['State']['Pid']}")
        return process if seen["Id"] in (process / "cgroup").read_text() else None

    async def _accepts(self, address: str, port: int) -> bool:
        command = [f"{BIN}/busybox", "grep", "-Eq", listening_pattern(address, port)]
        tables = [f"/proc/{name}" for name in _TABLES]
        return await self._client.ask(self._pause, [*command, *tables], within_s=_ASK_S) == 0


def listening_pattern(address: str, port: int) -> str:
    """Of a line in /proc/net/tcp or tcp6 that says that something accepts what comes to the IPv4 address there. Each 32
    bits are in the machine's order: that of amd64 and arm64 here."""
    word = "".join(f"{int(octet):02X}" for octet in reversed(address.split(".")))
    return f"^ *[0-9]+: (0{{8}}|0{{32}}|{word}|0{{16}}FFFF0000{word}):{port:04X} [0-9A-F:]+ 0A "
