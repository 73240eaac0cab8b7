"""One simulated control-plane process: the production dispatchers, timekeeper, sweeps, caretaker and retention, on
links that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from runyard.dispatch.caretaker import Caretaker
from runyard.dispatch.context import AttemptContext
from runyard.dispatch.operations import PoolOperations
from runyard.dispatch.ownership import PoolLease
from runyard.dispatch.pool_dispatcher import PoolDispatcher
from runyard.dispatch.retention import Keep, Retention
from runyard.dispatch.service import _forever
from runyard.dispatch.sweep import Sweep
from runyard.dispatch.timekeeper import Timekeeper
from runyard.ledger.port import Claimed, Ledger
from runyard.model.clock import Clock
from runyard.model.errors import LedgerUnavailable
from runyard.providers.port import PoolShape, Provider
from runyard.testing.machine_provider import MachineProvider
from runyard.testing.scripted_provider import ScriptedProvider
from runyard.testing.simulation.link import Link, LinkedLedger, LinkedProvider
from runyard.testing.simulation.scenario import PlannedPool
from runyard.testing.simulation.sites import KeptStore, Sites
from runyard.testing.virtual_time import Process

SAFETY_TIMER_S = 30.0
LOOK_AROUND_S = 15.0
RETENTION_EVERY_S = 20.0
_NOWHERE = Path("/nonexistent")

SweepOf = Callable[..., Sweep]
Loop = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class SimulatedClock:
    """Runs with the loop; the wall clock can be set, the boot clock cannot."""

    offset_s: float = 0.0

    def now(self) -> float:
        return 1_000_000.0 + asyncio.get_running_loop().time() + self.offset_s

    def boottime(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A fault put into the parts under test, to see whether it is found. Each field wraps or replaces one of them."""

    ledger: Callable[[Ledger], Any] = field(default=lambda ledger: ledger)
    provider: Callable[[Provider], Any] = field(default=lambda provider: provider)
    sweep: SweepOf = Sweep
    store: Callable[[Any], Any] = field(default=lambda store: store)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the services of a history share, and what each of them is told to keep. `keep` None: everything for ever."""

    ledger: Ledger
    checked: Callable[[str, str, tuple[Any, ...], object], None]
    sites: Sites
    logs: KeptStore
    artifacts: KeptStore
    keep: Keep | None
    plant: Plant


class SimulatedService:
    """One life of a service. `name` is its owner's name, the same over its lives; the process's is of this life."""

    def __init__(
        self,
        name: str,
        *,
        process: Process,
        link: Link,
        shared: Installation,
        pools: tuple[PlannedPool, ...],
        clock: Clock,
    ) -> None:
        self.name = name
        self.process = process
        self.link = link
        self._shared = shared
        self._pools = pools
        self._clock = clock
        who = process.name
        linked = LinkedLedger(
            shared.plant.ledger(shared.ledger),
            link,
            checked=lambda call, args, result: shared.checked(who, call, args, result),
        )
        self._ledger = cast(Ledger, linked)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        with self.process.entered():
            self._tasks = [asyncio.create_task(_forever("service", self._run))]

    async def _run(self) -> None:
        """Writes down what its config says of its pools, then runs all loops until the process ends."""
        for pool in self._pools:
            await self._put_pool(pool)
        loops = self._loops()
        await asyncio.gather(*(_forever(name, loop) for name, loop in loops.items()))

    async def _put_pool(self, pool: PlannedPool) -> None:
        """Again and again, as a service is started again that found no ledger."""
        while True:
            try:
                await self._ledger.put_pool(pool.settings)
                return
            except LedgerUnavailable:
                await asyncio.sleep(1.0)

    def _loops(self) -> dict[str, Loop]:
        timekeeper = Timekeeper(ledger=self._ledger, clock=self._clock, idle_s=SAFETY_TIMER_S)
        caretaker = Caretaker(
            ledger=self._ledger,
            owner=self.name,
            own_pools=frozenset(pool.name for pool in self._pools),
            look_s=LOOK_AROUND_S,
        )
        loops: dict[str, Loop] = {"timekeeper": timekeeper.run, "caretaker": caretaker.run}
        if self._shared.keep is not None:
            shared = self._shared
            retention = Retention(
                self._shared.keep,
                ledger=self._ledger,
                logs=shared.plant.store(shared.logs),
                artifacts=shared.plant.store(shared.artifacts),
            )
            loops["retention"] = lambda: _sweep_retention(retention)
        return loops | {pool.name: self._dispatcher(pool).run for pool in self._pools}

    def _dispatcher(self, pool: PlannedPool) -> PoolDispatcher:
        ledger, plant = self._ledger, self._shared.plant
        provider = self._provider(pool)
        sweep = plant.sweep(ledger=ledger, provider=provider, clock=self._clock)
        return PoolDispatcher(
            pool.settings,
            ledger=ledger,
            provider=provider,
            owner=self.name,
            clock=self._clock,
            context_of=self._context_of,
            operations=PoolOperations(ledger=ledger, provider=provider, sweep=sweep),
            sweep=sweep,
            timer_s=SAFETY_TIMER_S,
        )

    def _provider(self, pool: PlannedPool) -> Provider:
        sites, plant = self._shared.sites, self._shared.plant
        if pool.is_fleet:
            machines = MachineProvider(sites.fleets[pool.name].world)
            return cast(Provider, LinkedProvider(plant.provider(machines), self.link))
        shape = PoolShape(slots=pool.settings.slots, budget=pool.settings.budget)
        scripted = ScriptedProvider(sites.worlds[pool.name], shape=shape, is_far=pool.is_far)
        if pool.is_far:
            scripted.misbehave = self.link.misbehave
        return cast(Provider, LinkedProvider(plant.provider(scripted), self.link))

    def _context_of(self, claimed: Claimed, lease: PoolLease) -> AttemptContext:
        return AttemptContext(
            ledger=self._ledger,
            lease=lease,
            key=claimed.attempt.key,
            log_directory=_NOWHERE,
            log_bytes_max=1 << 20,
            artifact_directory=_NOWHERE,
        )


async def _sweep_retention(retention: Retention) -> None:
    while True:
        await retention.sweep()
        await asyncio.sleep(RETENTION_EVERY_S)
