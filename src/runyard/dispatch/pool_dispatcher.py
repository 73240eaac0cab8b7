"""The owner of one pool: asks for room, claims, follows, and acts on what operators and users asked meanwhile.

It is woken by the submit itself (`ready`), by requests for its pool (`pool:<name>`) and by its own attempts' ends; a
timer stands behind all of them. Everything it decides comes from policy/; everything it writes is fenced.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from runyard.dispatch.context import AttemptContext
from runyard.dispatch.follow import AttemptFollower, Ownership
from runyard.dispatch.operations import PoolOperations
from runyard.ledger.port import Claimed, ClaimRequest, Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.clock import Clock
from runyard.model.errors import Fenced, LedgerUnavailable, RunyardError
from runyard.model.pool import (
    Availability,
    AvailabilityKind,
    Budget,
    ClassDemand,
    Demand,
    Fence,
    PoolHealth,
    PoolSettings,
)
from runyard.policy import placement
from runyard.providers.port import Provider

LEASE_S = 15.0
TIMER_S = 1.0
STATE_AVAILABILITY_EVERY_S = 1.0

log = structlog.get_logger()

ContextOf = Callable[[Claimed, Fence], AttemptContext]


class PoolDispatcher:
    """Owns a pool for as long as `run` runs and the lease lasts."""

    def __init__(
        self,
        settings: PoolSettings,
        *,
        ledger: Ledger,
        provider: Provider,
        owner: str,
        clock: Clock,
        context_of: ContextOf,
        operations: PoolOperations,
        lease_s: float = LEASE_S,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._provider = provider
        self._owner = owner
        self._clock = clock
        self._context_of = context_of
        self._operations = operations
        self._lease_s = lease_s
        self._valid_until = 0.0
        self._followers: dict[AttemptKey, AttemptFollower] = {}
        self._tasks: dict[AttemptKey, asyncio.Task[None]] = {}
        self._clearing: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._fenced = asyncio.Event()
        self._idle = asyncio.Event()
        self._is_draining = False
        self._stated: dict[str, Availability] = {}
        self._stated_at = float("-inf")
        self._log = log.bind(pool=settings.name)

    # -- life -----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Takes the pool whenever it is free and acts for it until cancelled. Its attempts run on after that."""
        try:
            while True:
                fence = await self._acquire()
                try:
                    await self._own(fence)
                except Fenced as error:
                    self._log.error("pool_lost", error=error.message)
                finally:
                    await self._let_go()
        finally:
            await self._settle_clearing()

    def drain(self) -> None:
        """Takes nothing new from now on."""
        self._is_draining = True

    async def drained(self) -> None:
        """Returns when it follows nothing any more."""
        while self._followers:
            self._idle.clear()
            await self._idle.wait()

    async def _acquire(self) -> Fence:
        while True:
            asked_at = self._clock.boottime()
            try:
                fence = await self._ledger.acquire_pool(
                    self._settings.name, owner=self._owner, lease_s=self._lease_s
                )
            except LedgerUnavailable as error:
                self._log.error("ledger_unavailable", error=error.message)
                fence = None
            if fence is not None:
                self._valid_until = asked_at + self._lease_s
                self._log.info("pool_acquired", epoch=fence.epoch)
                return fence
            await asyncio.sleep(min(self._lease_s / 3, TIMER_S))

    async def _own(self, fence: Fence) -> None:
        self._fenced.clear()
        self._stated = {}
        subscription = self._ledger.subscribe("ready", f"pool:{self._settings.name}")
        renewing = asyncio.create_task(self._renew(fence))
        try:
            await self._ledger.set_pool_health(fence, health=PoolHealth.HEALTHY, message="")
            await self._recover(fence)
            topics = frozenset({f"pool:{self._settings.name}"})
            listening = asyncio.create_task(subscription.wait(TIMER_S))
            try:
                while True:
                    await self._turn(fence, topics)
                    topics = await self._next_topics(listening)
                    if listening.done():
                        listening = asyncio.create_task(subscription.wait(TIMER_S))
            finally:
                listening.cancel()
        finally:
            renewing.cancel()
            subscription.close()
            if self._holds():
                with contextlib.suppress(RunyardError):
                    await self._ledger.release_pool(fence)

    async def _next_topics(self, listening: asyncio.Task[frozenset[str]]) -> frozenset[str]:
        """Waits for a topic, an attempt's end, or the loss of the pool."""
        waking = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({listening, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
        self._wake.clear()
        if self._fenced.is_set():
            raise Fenced(f"pool '{self._settings.name}' is owned by another service now")
        return listening.result() if listening.done() else frozenset()

    async def _renew(self, fence: Fence) -> None:
        """Keeps the lease, and says so when it is lost."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            asked_at = self._clock.boottime()
            try:
                await self._ledger.renew_pool(fence, lease_s=self._lease_s)
                self._valid_until = asked_at + self._lease_s
            except Fenced:
                self._lose()
                return
            except LedgerUnavailable as error:
                self._log.error("lease_not_renewed", error=error.message)

    def _lose(self) -> None:
        self._fenced.set()
        self._wake.set()

    def _holds(self) -> bool:
        """The holder's own judgement: never longer than the lease lasts from the moment it asked."""
        return not self._fenced.is_set() and self._clock.boottime() < self._valid_until

    async def _let_go(self) -> None:
        """Stops following; the attempts run on and are adopted by whoever owns the pool next."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._followers.clear()

    async def _settle_clearing(self) -> None:
        await asyncio.gather(*self._clearing, return_exceptions=True)

    # -- one turn -------------------------------------------------------------------------------------------------
    async def _turn(self, fence: Fence, topics: frozenset[str]) -> None:
        """One pass over everything there is to do. An unavailable ledger ends the pass, not the loop."""
        try:
            if not topics or f"pool:{self._settings.name}" in topics:
                await self._recover(fence)
                await self._operations.fulfil(self._settings.name, fence)
            await self._dispatch(fence)
        except LedgerUnavailable as error:
            self._log.error("ledger_unavailable", error=error.message)
            await asyncio.sleep(TIMER_S)

    async def _recover(self, fence: Fence) -> None:
        """Follows every unfinished attempt that is not followed yet, and passes on cancels (also those of which the
        wake-up was lost: this is the timer's work too)."""
        for claimed in await self._ledger.list_unfinished(fence):
            follower = self._followers.get(claimed.attempt.key)
            if follower is None:
                self._log.info("attempt_adopted", attempt=claimed.attempt.key.resource_name)
                self._follow(claimed, fence)
            elif claimed.job.cancel_requested_at is not None:
                self._spawn_clearing(follower.cancel())

    async def _dispatch(self, fence: Fence) -> None:
        if self._is_draining or not self._holds() or not self._has_news():
            return
        classes = await self._ledger.list_demand(fence)
        if not classes:
            return
        answers = await self._ask(classes)
        await self._state(fence, answers)
        rooms = claimable(classes, answers, now_at=self._clock.now())
        if rooms:
            await self._claim(fence, rooms)
        await self._provider.handle_queue_size(self._demand(classes))

    def _has_news(self) -> bool:
        """A full pool need not look at each new job, only often enough to say to the waiting that it is full."""
        is_full = len(self._followers) >= self._settings.slots
        return not is_full or self._clock.boottime() - self._stated_at >= STATE_AVAILABILITY_EVERY_S

    async def _ask(self, classes: list[ClassDemand]) -> dict[str, Availability]:
        """The pool's answer for each class that waits: ask before taking."""
        free, slots = self._free()
        answers = {}
        for demand in classes:
            place = await self._provider.can_dequeue(demand.requirements)
            answers[demand.class_key] = placement.availability(
                demand.requirements, self._settings, free=free, slots_free=len(slots), place=place
            )
        return answers

    async def _state(self, fence: Fence, answers: Mapping[str, Availability]) -> None:
        """Writes down what changed of the answers, so that waiting users can read it; at most once a second, because
        a busy pool is full and free many times in each."""
        changed = {key: answer for key, answer in answers.items() if self._stated.get(key) != answer}
        at = self._clock.boottime()
        if not changed or at - self._stated_at < STATE_AVAILABILITY_EVERY_S:
            return
        await self._ledger.set_availability(fence, changed)
        self._stated = dict(answers)
        self._stated_at = at

    async def _claim(self, fence: Fence, rooms: Mapping[str, int]) -> None:
        free, slots = self._free()
        request = ClaimRequest(fence=fence, free_slots=slots, rooms=rooms, budget=free)
        for claimed in await self._ledger.claim(request):
            self._log.info(
                "attempt_claimed",
                job=claimed.job.id,
                attempt=claimed.attempt.key.resource_name,
                slot=claimed.attempt.slot,
            )
            self._follow(claimed, fence)

    def _free(self) -> tuple[Budget, tuple[int, ...]]:
        held = list(self._followers.values())
        budget = placement.free_budget(
            self._settings.budget, (follower.job.spec.requirements for follower in held)
        )
        return budget, placement.free_slots(
            self._settings.slots, (follower.attempt.slot for follower in held)
        )

    def _demand(self, classes: list[ClassDemand]) -> Demand:
        running = sum("running" in follower.phases for follower in self._followers.values())
        return Demand(
            at=self._clock.now(),
            classes=tuple(classes),
            starting=len(self._followers) - running,
            running=running,
        )

    # -- following ------------------------------------------------------------------------------------------------
    def _follow(self, claimed: Claimed, fence: Fence) -> None:
        follower = AttemptFollower(
            claimed,
            ledger=self._ledger,
            provider=self._provider,
            ownership=Ownership(fence=fence, may_act=self._holds),
            context=self._context_of(claimed, fence),
        )
        self._followers[follower.key] = follower
        self._tasks[follower.key] = asyncio.create_task(self._see_through(follower))

    async def _see_through(self, follower: AttemptFollower) -> None:
        try:
            await follower.run()
        except Fenced:
            self._lose()
            return
        finally:
            self._followers.pop(follower.key, None)
            self._tasks.pop(follower.key, None)
            self._wake.set()
            if not self._followers:
                self._idle.set()
        self._spawn_clearing(follower.clear())

    def _spawn_clearing(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)


def claimable(
    classes: list[ClassDemand], answers: Mapping[str, Availability], *, now_at: float
) -> dict[str, int]:
    """How many of each class to claim at most: those with room now, or only the class that room is kept for."""
    rooms = {key: answer.room for key, answer in answers.items() if answer.kind is AvailabilityKind.NOW}
    waiting = {
        demand.class_key: demand.oldest_queued_at for demand in classes if demand.oldest_queued_at is not None
    }
    reserved = placement.reserved_class(waiting, answers, now_at=now_at)
    return rooms if reserved is None else {key: room for key, room in rooms.items() if key == reserved}
