"""What a job in a Docker daemon costs: the provider against the daemon's own API, create, start, first byte.

The daemon is the one at DOCKER_HOST, or dockerd's socket; what is made there is removed. The image is our own busybox.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from runyard.bench.comparing import Comparison, compare_ratio, in_turns
from runyard.model.attempt import UID_LENGTH, AttemptKey
from runyard.model.job import JobSpec, Step
from runyard.model.requirements import Requirements
from runyard.providers.docker.client import DockerClient, daemon_address
from runyard.providers.docker.containers import Facts, bare
from runyard.providers.docker.options import DEFAULT_BUSYBOX
from runyard.providers.docker.plan import BIN
from runyard.providers.docker.provider import DockerProvider
from runyard.providers.docker.tools import ToolMaker
from runyard.providers.port import AttemptRequest, ProviderConfig
from runyard.testing.memory_context import MemoryContext, MemoryLog

AT_ONCE = 8
_HELLO = (f"{BIN}/busybox", "echo", "hello")
_MEMORY_BYTES = 64 << 20
_SMALL = Requirements(cpu_millis=1000, memory_bytes=_MEMORY_BYTES)


class _FirstByte(MemoryLog):
    """Notes when the first byte came."""

    def __init__(self) -> None:
        super().__init__()
        self.came_at = 0.0

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        self.came_at = self.came_at or time.perf_counter()
        await super().append(step, stream, offset, data)


@dataclass(frozen=True, slots=True)
class _World:
    provider: DockerProvider
    client: DockerClient

    async def raw(self) -> float:
        """Seconds to the first byte of a container, hardened the same, with a network namespace of its own."""
        place = self.provider.place
        tools = await place.tools.get(f"{place.options.user}:{place.options.user}")
        config = bare(place.facts, tools, user="1000:1000", memory_bytes=_MEMORY_BYTES)
        name = f"runyard-bench-{secrets.token_hex(6)}"
        began = time.perf_counter()
        await self.client.create_container(
            name, config | {"Entrypoint": [_HELLO[0]], "Cmd": list(_HELLO[1:])}
        )
        try:
            await self.client.start_container(name)
            async for _ in self.client.follow_log(name):
                return time.perf_counter() - began
        finally:
            await self.client.remove_container(name)
        raise RuntimeError("the reference container printed nothing")

    async def attempt(self, slot: int = 0) -> float:
        """Seconds to the first byte of an attempt of the provider's."""
        spec = JobSpec(steps=(Step(name="main", command=_HELLO),), requirements=_SMALL)
        key = AttemptKey(secrets.token_hex(UID_LENGTH // 2), 1)
        log = _FirstByte()
        began = time.perf_counter()
        outcome = await self.provider.run_job(
            AttemptRequest(key=key, job_id="bench", spec=spec, slot=slot, epoch=1), MemoryContext(log=log)
        )
        await self.provider.destroy_resource(key.resource_name)
        if not log.came_at:
            raise RuntimeError(f"the attempt printed nothing: {outcome}")
        return log.came_at - began


async def cold_first_byte(*, rounds: int) -> Comparison:
    async with _opened(slots=1) as world:
        series = await in_turns(world.raw, world.attempt, rounds=rounds)
    return compare_ratio(
        "a job on a docker pool, network none: run_job -> first byte",
        "the daemon's API: create, start, first byte, hardened the same",
        series,
        bound=0.75,
    )


async def cold_rate(*, rounds: int) -> Comparison:
    """Containers a second from create to removal, eight at a time."""
    async with _opened(slots=AT_ONCE) as world:

        async def raw() -> float:
            began = time.perf_counter()
            await asyncio.gather(*(world.raw() for _ in range(AT_ONCE)))
            return AT_ONCE / (time.perf_counter() - began)

        async def ours() -> float:
            began = time.perf_counter()
            await asyncio.gather(*(world.attempt(slot) for slot in range(AT_ONCE)))
            return AT_ONCE / (time.perf_counter() - began)

        series = await in_turns(raw, ours, rounds=rounds)
    return compare_ratio(
        "jobs on a docker pool, network none, 8 at a time, until removed",
        "the daemon's API, 8 at a time: create, start, first byte, removal",
        series,
        bound=1.4,
        kind="at least",
    )


@contextlib.asynccontextmanager
async def _opened(*, slots: int) -> AsyncIterator[_World]:
    facts = Facts(installation="bench", pool="bench", log_driver="local", pids_max=64)
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as folder:
        async with DockerClient(daemon_address(None)) as client:
            tools = await ToolMaker(client, facts, DEFAULT_BUSYBOX).get("1000:1000")
            provider = DockerProvider(
                ProviderConfig(
                    pool=facts.pool,
                    installation=facts.installation,
                    data_directory=Path(folder),
                    slots=slots,
                    options={"image": tools.image},
                )
            )
            await provider.start()
            try:
                yield _World(provider, client)
            finally:
                await provider.remove_shared()
                await provider.close()
