"""Network namespaces that wait: a sleeping container for each slot, whose namespace the slot's jobs join.

A container's own namespace costs half of its start (dockerd runs itself twice to set it up); one that is there costs
nothing. It is never shared by two jobs at a time: where another container of the slot still runs, the job gets its own.

That of `network: open` is on a network of the pool's, and has set routes there before it sleeps: whatever is not
public leads nowhere, the daemon's host included, and a job has no right to change routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from runyard.host.addresses import ALWAYS_CLOSED, NOT_PUBLIC
from runyard.model.errors import Unreachable
from runyard.providers.docker import names
from runyard.providers.docker.client import EFFECT_S, DockerClient, Missing, NameTaken, Refused
from runyard.providers.docker.containers import SLEEP, Facts, Tools, attempt_labels, pause, pool_labels
from runyard.providers.docker.plan import BIN
from runyard.providers.port import AttemptRequest

_EMPTY = "none"


class Pauses:
    """The pool's, made on need and kept until `remove_all`."""

    def __init__(
        self, client: DockerClient, facts: Facts, *, closed: Sequence[str], dns: Sequence[str]
    ) -> None:
        """`closed`: further networks that `open` does not reach; `dns`: addresses that it does reach."""
        self._client = client
        self._facts = facts
        self._closed = tuple(closed)
        self._dns = tuple(dns)
        self._locks: dict[str, asyncio.Lock] = {}

    def name(self, slot: int, network: str) -> str:
        name = names.pause_container(self._facts.installation, self._facts.pool, slot)
        return name if network == _EMPTY else f"{name}-open"

    @property
    def open_network(self) -> str:
        return f"runyard-open-{names.short_hash(f'{self._facts.installation}/{self._facts.pool}')}"

    async def ready(self, slot: int, network: str, tools: Tools) -> str:
        """The NetworkMode for a container of the slot."""
        name = self.name(slot, network)
        async with self._locks.setdefault(name, asyncio.Lock()):
            seen = await self._client.inspect_container(name)
            if seen is None or seen["Config"]["Image"] != tools.image:
                await self._make(name, slot, network, tools, replaced=seen is not None)
            elif not seen["State"]["Running"]:
                await self._client.start_container(name)
        return f"container:{name}"

    async def create_own(self, request: AttemptRequest, tools: Tools, *, hosts: Sequence[str]) -> None:
        """That of an attempt alone: `hosts` (`name:address`) are in the /etc/hosts of all that join it, and any port
        is open to any user."""
        config = await self._config(request.slot, request.spec.requirements.network, tools)
        config["Labels"] = attempt_labels(self._facts, request)
        config["HostConfig"]["ExtraHosts"] = list(hosts)
        config["HostConfig"]["Sysctls"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
        with contextlib.suppress(NameTaken):
            await self._client.create_container(_own_name(request), config)

    async def start_own(self, request: AttemptRequest) -> str:
        """The NetworkMode for the attempt's containers."""
        name = _own_name(request)
        await self._client.start_container(name)
        if request.spec.requirements.network != _EMPTY:
            await self._await_routes(name)
        return f"container:{name}"

    async def prepare(self, slots: int, tools: Tools) -> None:
        """Those without a network, ahead of need. What fails here is made, or told, when it is needed."""
        for slot in range(slots):
            with contextlib.suppress(Exception):
                await self.ready(slot, _EMPTY, tools)

    async def _make(self, name: str, slot: int, network: str, tools: Tools, *, replaced: bool) -> None:
        if replaced:
            await self._client.remove_container(name)
        with contextlib.suppress(NameTaken):
            await self._client.create_container(name, await self._config(slot, network, tools))
        await self._client.start_container(name)
        if network != _EMPTY:
            await self._await_routes(name)

    async def _await_routes(self, name: str) -> None:
        """Until it sleeps: nobody joins before its routes are set. One that failed to set them has ended, and can not
        be joined. Raises Unreachable where that takes too long."""
        ends_at = time.monotonic() + EFFECT_S
        while True:
            try:
                commands = await self._client.list_commands(name)
            except NameTaken:
                return
            if commands and all(each.startswith(SLEEP) for each in commands):
                return
            if time.monotonic() > ends_at:
                raise Unreachable(f"container {name} did not set its routes within {EFFECT_S:g} s")
            await asyncio.sleep(0.02)

    async def _config(self, slot: int, network: str, tools: Tools) -> dict[str, Any]:
        is_open = network != _EMPTY
        if is_open:
            await self._make_network()
        config = pause(
            self._facts,
            tools,
            slot=slot,
            network=self.open_network if is_open else _EMPTY,
            command=self._routes() if is_open else "",
        )
        if is_open and self._dns:
            config["HostConfig"]["Dns"] = list(self._dns)
        return config

    async def _make_network(self) -> None:
        options = {"com.docker.network.bridge.enable_icc": "false"}
        config = {
            "Name": self.open_network,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Labels": pool_labels(self._facts),
            "Options": options,
        }
        try:
            await self._client.create_network(config)
        except NameTaken:
            return

    def _routes(self) -> str:
        """Everything to the gateway as the next hop, and nothing to the gateway itself or to what is not public."""
        closed = dict.fromkeys((*ALWAYS_CLOSED, *NOT_PUBLIC, *self._closed))
        lines = [
            f"set -e; i='{BIN}/busybox ip';",
            "gateway=$($i route show default | while read -r d v g rest; do echo $g; break; done);",
            "subnet=$($i route show | while read -r net rest; do"
            " case $net in default) ;; *) echo $net; break ;; esac; done);",
            "$i route replace default via $gateway dev eth0 onlink;",
            *(f"$i route replace {address}/32 via $gateway dev eth0 onlink;" for address in self._dns),
            *(
                f"$i route add unreachable {network} || true;"
                for network in closed
                if network != "127.0.0.0/8"
            ),
            "$i route add unreachable $gateway || true;",
            "$i route del $subnet dev eth0;",
        ]
        return " ".join(lines)


def _own_name(request: AttemptRequest) -> str:
    return names.network_container(request.key.resource_name)


def is_gone(error: Refused) -> bool:
    """Whether a start failed because the namespace that it should join is not there."""
    words = error.message.lower()
    return (
        isinstance(error, Missing | NameTaken)
        or "non running container" in words
        or "joining network" in words
    )
