"""The production dispatcher over a real ledger in memory and a provider whose world is in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.dispatch.context import AttemptContext
from runyard.dispatch.follow import BeforeSettle, HandOut
from runyard.dispatch.operations import PoolOperations
from runyard.dispatch.ownership import PoolLease
from runyard.dispatch.pool_dispatcher import PoolDispatcher
from runyard.dispatch.sweep import Sweep
from runyard.dispatch.telemetry import Telemetry
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Claimed, Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.job import Job, JobState
from runyard.testing.scripted_provider import ScriptedProvider, World
from tests.factories import a_new_job, a_pool_settings, a_spec

DEADLINE_S = 10.0


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def boottime(self) -> float:
        return self.time


class Yard:
    """One ledger, one world, and as many owners of the pool `local` as a test starts."""

    def __init__(self, ledger: Ledger, clock: HandClock) -> None:
        self.ledger = ledger
        self.clock = clock
        self.world = World()
        self.providers: list[ScriptedProvider] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._number = 0

    def start_owner(
        self,
        name: str = "service-1",
        provider: ScriptedProvider | None = None,
        before_settle: BeforeSettle | None = None,
        telemetry: Telemetry | None = None,
        hand_out: HandOut | None = None,
    ) -> PoolDispatcher:
        provider = provider or ScriptedProvider(self.world)
        self.providers.append(provider)
        sweep = Sweep(ledger=self.ledger, provider=provider, clock=self.clock)
        dispatcher = PoolDispatcher(
            a_pool_settings(),
            ledger=self.ledger,
            provider=provider,
            owner=name,
            clock=self.clock,
            context_of=self._context_of,
            operations=PoolOperations(ledger=self.ledger, provider=provider, sweep=sweep),
            sweep=sweep,
            before_settle=before_settle,
            telemetry=telemetry,
            hand_out=hand_out,
        )
        self._tasks.append(asyncio.create_task(dispatcher.run()))
        return dispatcher

    async def stop_owners(self) -> None:
        """They let go at once, wherever they are; what runs goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def _context_of(self, claimed: Claimed, lease: PoolLease) -> AttemptContext:
        nowhere = Path("/nonexistent")
        return AttemptContext(
            ledger=self.ledger,
            lease=lease,
            key=claimed.attempt.key,
            log_directory=nowhere,
            log_bytes_max=1 << 20,
            artifact_directory=nowhere,
        )

    async def submit(self, **spec: object) -> str:
        """Returns the uid."""
        self._number += 1
        (answer,) = await self.ledger.submit([a_new_job(self._number, spec=a_spec(**spec))])
        assert not isinstance(answer, Exception), answer
        return answer.job.uid

    async def reaches(self, uid: str, *states: JobState) -> Job:
        """The job once it is in one of the states; fails after DEADLINE_S."""
        subscription = self.ledger.subscribe(f"job:{uid}")
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    job = await self.ledger.get_job(uid)
                    assert job is not None
                    if job.state in states:
                        return job
                    await subscription.wait(0.5)
        finally:
            subscription.close()

    async def place_of(self, uid: str, number: int = 1) -> AttemptKey:
        """The key of an attempt once its place exists."""
        key = AttemptKey(uid, number)
        async with asyncio.timeout(DEADLINE_S):
            while key.resource_name not in self.world.places:
                self.world.started.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self.world.started.wait()
        return key


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    clock = HandClock()
    ledger = create_ledger("sqlite://:memory:", clock=clock)
    await ledger.open()
    await ledger.put_pool(a_pool_settings())
    made = Yard(ledger, clock)
    try:
        yield made
    finally:
        await made.stop_owners()
        await ledger.close()
