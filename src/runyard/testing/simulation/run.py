"""Plays one history to its end and says what it broke."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import structlog

from runyard.ledger.sqlite.ledger import SqliteLedger
from runyard.ledger.subscriptions import Hub, TopicSubscription
from runyard.model.attempt import AttemptKey
from runyard.providers.port import AttemptRequest
from runyard.testing.plays import Play
from runyard.testing.simulation.drawing import draw
from runyard.testing.simulation.fleet import Fleet
from runyard.testing.simulation.invariants import Checker
from runyard.testing.simulation.link import Link
from runyard.testing.simulation.scenario import (
    QUIET_AT_S,
    Jump,
    Mishap,
    PlannedJob,
    PlannedPool,
    Scenario,
    Stop,
)
from runyard.testing.simulation.service import Installation, Plant, SimulatedClock, SimulatedService
from runyard.testing.simulation.sites import KeptStore, Sites
from runyard.testing.simulation.snapshot import Reader
from runyard.testing.simulation.users import Users
from runyard.testing.virtual_time import Process, VirtualTimeLoop, call_outside

END_AT_S = 6_000.0
LOOK_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a history ended. `violation` None: every promise was kept. `trace` has a line for each thing that happened;
    `digest` is its hash: equal for equal seeds."""

    seed: int
    violation: str | None
    lasted_s: float
    commits: int
    trace: tuple[str, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


NO_PLANT = Plant()


def simulate(seed: int, plant: Plant = NO_PLANT) -> Result:
    """The history of this seed, with the production code as it is, or with a fault planted in it."""
    with _silent(), _without_collection(), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(Simulation(draw(seed), plant).play())


class Simulation:
    def __init__(self, scenario: Scenario, plant: Plant) -> None:
        self._scenario = scenario
        self._dice = Random(f"faults {scenario.seed}")
        self._plans: dict[str, PlannedJob] = {planned.new.uid: planned for planned in scenario.jobs}
        self._clocks = [SimulatedClock() for _ in range(scenario.services)]
        self._ledger_clock = SimulatedClock()
        self._ledger = SqliteLedger(":memory:", clock=self._ledger_clock, is_threaded=False)
        self._ledger._hub = _OrderedHub()  # the one thing in it whose order hangs on addresses in memory
        self._sites = Sites(
            [pool.name for pool in scenario.pools if not pool.is_fleet],
            fleets={pool.name: self._fleet() for pool in scenario.pools if pool.is_fleet},
            now=SimulatedClock().now,
            script=self._play_of,
        )
        self._shared = Installation(
            ledger=self._ledger,
            checked=self._checked,
            sites=self._sites,
            logs=KeptStore(on_delete=lambda key: self._left(key, "log")),
            artifacts=KeptStore(on_delete=lambda key: self._left(key, "artifacts")),
            keep=scenario.keep,
            plant=plant,
        )
        self._services: list[SimulatedService] = []
        self._living: dict[int, SimulatedService] = {}
        self._stops = {
            index: [one for one in scenario.stops if one.service == index] for index in self._indices
        }
        self._trace: list[tuple[float, str, str, object]] = []
        self._checker: Checker | None = None

    def _fleet(self) -> Fleet:
        return Fleet(
            self._ledger,
            script=self._play_of,
            checked=self._checked,
            failing=self._scenario.rates.ledger,
            dice=Random(f"machines {self._scenario.seed}"),
        )

    @property
    def _indices(self) -> range:
        return range(self._scenario.services)

    # -- the course of it -----------------------------------------------------------------------------------------
    async def play(self) -> Result:
        await self._set_up()
        assert self._checker is not None
        loop = asyncio.get_running_loop()
        crashes: list[str] = []
        loop.set_exception_handler(
            lambda _, told: crashes.append(repr(told.get("exception") or told["message"]))
        )
        users = Users(self._scenario, self._shared, plans=self._plans)
        using = asyncio.create_task(users.run())
        for index in self._indices:
            self._start_service(index)
        for jump in self._scenario.jumps:
            call_outside(jump.at, self._jump, jump)
        for death in self._scenario.deaths:
            call_outside(death.at, self._die, death.service)
        for mishap in self._scenario.mishaps:
            call_outside(mishap.at, self._befall, mishap)
        for pool in self._scenario.pools:
            if pool.dropped_at is not None:
                call_outside(pool.dropped_at, self._drop, pool)
        call_outside(QUIET_AT_S, self._calm_down)
        await self._until_quiet(using)
        violation = self._checker.violation or await self._last_checks(using, crashes)
        lasted_s = loop.time()
        await self._tear_down(using)
        return Result(
            seed=self._scenario.seed,
            violation=violation,
            lasted_s=lasted_s,
            commits=self._checker.commits,
            trace=tuple(f"{at:10.3f} {who:12} {what} {detail}" for at, who, what, detail in self._trace),
        )

    async def _set_up(self) -> None:
        await self._ledger.open()
        for queue in self._scenario.queues:
            await self._ledger.put_queue(queue)
        for tenant in self._scenario.tenants:
            await self._ledger.put_tenant(tenant)
        assert self._ledger._writer is not None
        reader = Reader(self._ledger._writer._connection)  # its own eyes, past the ledger
        self._checker = Checker(
            reader,
            shared=self._shared,
            scenario=self._scenario,
            plans=self._plans,
            now=self._ledger_clock.now,
            note=self._note,
        )
        for pool in self._scenario.pools:
            if pool.is_far and not pool.is_fleet:
                world = self._sites.worlds[pool.name]
                world.outcome_lag_s = self._scenario.rates.outcome_lag_s
                world.listing_lag_s = self._scenario.rates.listing_lag_s

    async def _until_quiet(self, using: asyncio.Task[None]) -> None:
        assert self._checker is not None
        loop = asyncio.get_running_loop()
        while self._checker.violation is None and loop.time() < END_AT_S:
            await asyncio.sleep(LOOK_EVERY_S)
            if loop.time() > QUIET_AT_S and using.done() and self._checker.is_quiet():
                return

    async def _last_checks(self, using: asyncio.Task[None], crashes: list[str]) -> str | None:
        assert self._checker is not None
        if not self._checker.is_quiet():
            return f"I10: after {END_AT_S:g} s: {self._checker.unrest()}"
        if crashes:
            return f"unexpected: {crashes[0]}"
        if (error := using.exception()) is not None:
            return f"unexpected: the users met {error!r}"
        self._checker.check_end()
        return self._checker.violation

    async def _tear_down(self, using: asyncio.Task[None]) -> None:
        """Whatever still stands anywhere ends at its next call."""
        for service in self._services:
            service.link.is_closed = True
            service.process.thaw()
        mine = {using, asyncio.current_task()}
        tasks = sorted(asyncio.all_tasks() - mine, key=lambda task: task.get_name())
        using.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(using, *tasks, return_exceptions=True)
        await self._ledger.close()

    # -- services -------------------------------------------------------------------------------------------------
    def _start_service(self, index: int) -> None:
        process = Process(f"service-{index + 1}.{len(self._services)}")
        link = Link(
            process,
            stops=self._stops[index],
            outages=[one for one in self._scenario.outages if one.service == index],
            rates=self._scenario.rates,
            dice=self._dice,
            on_stop=lambda stop: self._stopped(index, process, stop),
            note=self._note,
        )
        service = SimulatedService(
            f"service-{index + 1}",
            process=process,
            link=link,
            shared=self._shared,
            pools=self._configured(index),
            clock=self._clocks[index],
        )
        self._services.append(service)
        self._living[index] = service
        self._note(process.name, "starts", "")
        service.start()

    def _configured(self, index: int) -> tuple[PlannedPool, ...]:
        """The pools in its config, if it is started now."""
        now = asyncio.get_running_loop().time()
        return tuple(
            pool
            for pool in self._scenario.pools
            if index in pool.services and (pool.dropped_at is None or now < pool.dropped_at)
        )

    def _stopped(self, index: int, process: Process, stop: Stop) -> None:
        if stop.is_pause:
            call_outside(stop.lasts_s, self._thaw, index, process)
        else:
            self._living.pop(index, None)
            call_outside(stop.lasts_s, self._restart, index)

    def _thaw(self, index: int, process: Process) -> None:
        living = self._living.get(index)
        if living is not None and living.process is process and process.is_frozen:
            self._note(process.name, "goes on", "")
            process.thaw()

    def _restart(self, index: int) -> None:
        if index not in self._living and self._may_live(index):
            self._start_service(index)

    def _may_live(self, index: int) -> bool:
        """Faults end at QUIET_AT_S; some services die for good before."""
        now, never = asyncio.get_running_loop().time(), QUIET_AT_S
        until = min((one.at for one in self._scenario.deaths if one.service == index), default=never)
        return now < until or index == self._scenario.survivor

    def _die(self, index: int) -> None:
        """At once, and without a word: what it ran goes on, or not, by itself."""
        service = self._living.pop(index, None)
        if service is not None:
            self._note(service.process.name, "crashes", "")
            service.process.freeze()

    def _befall(self, mishap: Mishap) -> None:
        what = "vanishes" if mishap.lasts_s is None else f"is silent for {mishap.lasts_s:g} s"
        for fleet in self._sites.fleets.values():
            if (name := fleet.befall(mishap)) is not None:
                self._note(name, what, "")

    def _drop(self, pool: PlannedPool) -> None:
        """Whoever has it is started anew, with a config that does not name it any more."""
        self._note("operator", "drops", pool.name)
        for index in sorted(pool.services & self._living.keys()):
            self._die(index)
            self._restart(index)

    def _calm_down(self) -> None:
        """Faults end: one service is there, the other one never comes back."""
        for index in list(self._living):
            if index != self._scenario.survivor:
                self._die(index)
        self._restart(self._scenario.survivor)

    def _jump(self, jump: Jump) -> None:
        self._note("clock", str(jump.service), jump.by_s)
        (self._ledger_clock if jump.service < 0 else self._clocks[jump.service]).offset_s += jump.by_s

    # -- looking on -----------------------------------------------------------------------------------------------
    def _play_of(self, request: AttemptRequest) -> Play:
        return self._plans[request.key.uid].play(request.key.number)

    def _left(self, key: AttemptKey, what: str) -> None:
        assert self._checker is not None
        self._checker.deleted(key, what)

    def _checked(self, who: str, call: str, args: tuple[Any, ...], result: object) -> None:
        assert self._checker is not None
        self._checker.committed(who, call, args, result)

    def _note(self, who: str, what: str, detail: object) -> None:
        self._trace.append((asyncio.get_running_loop().time(), who, what, detail))


class _OrderedHub(Hub):
    """Wakes in an order that is the same in every process: by topic, then by subscription."""

    def subscribe(self, *topics: str) -> TopicSubscription:
        subscription = _NumberedSubscription(self, frozenset(topics))
        subscription.number = self._made = getattr(self, "_made", 0) + 1
        for topic in topics:
            self._by_topic.setdefault(topic, set()).add(subscription)
        return subscription

    def fire(self, topics: Iterable[str]) -> None:
        super().fire(sorted(topics))


class _NumberedSubscription(TopicSubscription):
    number = 0

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The services' own log lines cost more than what they tell about."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """The garbage collector runs between histories, not within: what it ends within would end at a random place."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
