"""One simulated control-plane process: the production dispatcher, timekeeper and sweeps, on links that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from runyard.dispatch.context import AttemptContext
from runyard.dispatch.operations import PoolOperations
from runyard.dispatch.ownership import PoolLease
from runyard.dispatch.pool_dispatcher import PoolDispatcher
from runyard.dispatch.service import _forever
from runyard.dispatch.sweep import Sweep
from runyard.dispatch.timekeeper import Timekeeper
from runyard.ledger.port import Claimed, Ledger
from runyard.model.clock import Clock
from runyard.model.pool import PoolSettings
from runyard.providers.port import PoolShape, Provider
from runyard.testing.scripted_provider import ScriptedProvider
from runyard.testing.scripted_world import World
from runyard.testing.simulation.link import Link, LinkedLedger, LinkedProvider
from runyard.testing.virtual_time import Process

SAFETY_TIMER_S = 30.0
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


class SimulatedService:
    """One life of a service. `name` is its owner's name, the same over its lives; the process's is of this life."""

    def __init__(
        self,
        name: str,
        *,
        process: Process,
        link: Link,
        ledger: Ledger,
        checked: Callable[[str, str, tuple[Any, ...], object], None],
        world: World,
        settings: PoolSettings,
        clock: Clock,
        plant: Plant,
        is_far: bool,
    ) -> None:
        self.name = name
        self.process = process
        self.link = link
        self._settings = settings
        who = process.name
        linked = LinkedLedger(
            plant.ledger(ledger), link, checked=lambda call, args, result: checked(who, call, args, result)
        )
        self._ledger = cast(Ledger, linked)
        shape = PoolShape(slots=settings.slots, budget=settings.budget)
        scripted = ScriptedProvider(world, shape=shape, is_far=is_far)
        scripted.misbehave = link.misbehave
        self._provider = cast(Provider, LinkedProvider(plant.provider(scripted), link))
        self._loops = self._assemble(clock, plant)
        self._tasks: list[asyncio.Task[None]] = []

    def _assemble(self, clock: Clock, plant: Plant) -> dict[str, Loop]:
        ledger, provider = self._ledger, self._provider
        sweep = plant.sweep(ledger=ledger, provider=provider, clock=clock)
        pool = PoolDispatcher(
            self._settings,
            ledger=ledger,
            provider=provider,
            owner=self.name,
            clock=clock,
            context_of=self._context_of,
            operations=PoolOperations(ledger=ledger, provider=provider, sweep=sweep),
            sweep=sweep,
            timer_s=SAFETY_TIMER_S,
        )
        timekeeper = Timekeeper(ledger=ledger, clock=clock, idle_s=SAFETY_TIMER_S)
        return {"timekeeper": timekeeper.run, "pool": pool.run}

    def _context_of(self, claimed: Claimed, lease: PoolLease) -> AttemptContext:
        return AttemptContext(
            ledger=self._ledger,
            lease=lease,
            key=claimed.attempt.key,
            log_directory=_NOWHERE,
            log_bytes_max=1 << 20,
            artifact_directory=_NOWHERE,
        )

    def start(self) -> None:
        with self.process.entered():
            self._tasks = [asyncio.create_task(_forever(name, loop)) for name, loop in self._loops.items()]

    async def stop(self) -> None:
        """As the service is told to stop: it lets go, and what runs goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
