"""The yard of tests/dispatch, on virtual time: an hour of waiting costs nothing, and each test takes the same turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from runyard.dispatch.context import AttemptContext
from runyard.dispatch.operations import PoolOperations
from runyard.dispatch.pool_dispatcher import PoolDispatcher
from runyard.dispatch.service import _forever
from runyard.dispatch.sweep import Sweep
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.job import Job, JobState
from runyard.testing.conformance import virtual_time
from runyard.testing.plays import Play
from runyard.testing.scripted_provider import ScriptedProvider, World
from runyard.testing.simulation.service import SimulatedClock
from runyard.testing.virtual_time import Process
from tests.factories import a_new_job, a_pool_settings, a_spec


class Yard:
    """One ledger, one world, and services that can be crashed and paused."""

    def __init__(self, ledger: Ledger, clock: SimulatedClock) -> None:
        self.ledger = ledger
        self.clock = clock
        self.world = World(now=clock.now)
        self._made = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: list[Process] = []

    def play(self, **play: Any) -> None:
        """What commands do from now on."""
        self.world.script = lambda request: Play(**play)

    def start_owner(
        self,
        name: str = "service-1",
        *,
        provider: Any = None,
        ledger: Any = None,
        is_far: bool = True,
        pool: str = "local",
    ) -> Process:
        ledger = cast(Ledger, ledger or self.ledger)
        provider = provider or ScriptedProvider(self.world, is_far=is_far)
        sweep = Sweep(ledger=ledger, provider=provider, clock=self.clock)
        dispatcher = PoolDispatcher(
            a_pool_settings(name=pool),
            ledger=ledger,
            provider=provider,
            owner=name,
            clock=self.clock,
            context_of=lambda claimed, lease: AttemptContext(
                ledger=ledger, lease=lease, key=claimed.attempt.key, log_directory=None,
                log_bytes_max=1, artifact_directory=None,
            ),
            operations=PoolOperations(ledger=ledger, provider=provider, sweep=sweep),
            sweep=sweep,
        )  # fmt: skip
        process = Process(name)
        with process.entered():
            self._tasks.append(asyncio.create_task(_forever("pool", dispatcher.run)))
        self._processes.append(process)
        return process

    async def submit(self, **spec: Any) -> str:
        self._made += 1
        (answer,) = await self.ledger.submit([a_new_job(self._made, spec=a_spec(**spec))])
        return answer.job.uid

    async def job(self, uid: str) -> Job:
        job = await self.ledger.get_job(uid)
        assert job is not None
        return job

    async def reaches(self, uid: str, *states: JobState, within_s: float = 3600.0) -> Job:
        async with asyncio.timeout(within_s):
            while (job := await self.job(uid)).state not in states:  # noqa: ASYNC110 -- virtual time
                await asyncio.sleep(0.1)
        return job

    async def starts(self, uid: str, number: int = 1, *, within_s: float = 3600.0) -> AttemptKey:
        """The key of an attempt once its command began."""
        key = AttemptKey(uid, number)
        async with asyncio.timeout(within_s):
            while not self.world.starts[key.resource_name]:  # noqa: ASYNC110 -- virtual time
                await asyncio.sleep(0.1)
        return key

    async def close(self) -> None:
        for process in self._processes:
            process.thaw()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
def anyio_backend():
    return virtual_time


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    clock = SimulatedClock()
    ledger = create_ledger("sqlite://:memory:", clock=clock, is_threaded=False)
    await ledger.open()
    await ledger.put_pool(a_pool_settings())
    made = Yard(ledger, clock)
    try:
        yield made
    finally:
        await made.close()
        await ledger.close()
