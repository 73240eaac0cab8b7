"""The owner of one pool: asks for room, claims, follows, and acts on what operators and users asked meanwhile.

It is woken by the submit itself (`ready`), by requests for its pool (`pool:<name>`) and by its own attempts' ends; a
timer stands behind all of them. Everything it decides comes from policy/; everything it writes is fenced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from runyard.dispatch.aftermath import Aftermath
from runyard.dispatch.context import AttemptContext
from runyard.dispatch.follow import CALL_DEADLINE_S, AttemptFollower, BeforeSettle, HandOut
from runyard.dispatch.operations import PoolOperations
from runyard.dispatch.ownership import LEASE_S, PoolLease
from runyard.dispatch.records import LeaseRecords
from runyard.dispatch.renewal import LoopRenewal, Renewal
from runyard.dispatch.stating import StatedAnswers
from runyard.dispatch.sweep import Sweep
from runyard.dispatch.telemetry import NoTelemetry, Telemetry
from runyard.ledger.port import Claimed, ClaimRequest, Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.clock import Clock
from runyard.model.errors import Fenced, LedgerUnavailable, NotFound, ProviderError, RunyardError
from runyard.model.pool import (
    Availability,
    AvailabilityKind,
    Budget,
    ClassDemand,
    Demand,
    PoolHealth,
    PoolSettings,
    WaitCode,
    soon,
)
from runyard.policy import placement
from runyard.providers.port import Provider

TIMER_S = 1.0
SWEEP_EVERY_S = 60.0
SWEEP_TIMEOUT_S = 45.0

log = structlog.get_logger()

ContextOf = Callable[[Claimed, PoolLease], AttemptContext]


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
        sweep: Sweep,
        renewal: Renewal | None = None,
        before_settle: BeforeSettle | None = None,
        telemetry: Telemetry | None = None,
        hand_out: HandOut | None = None,
        lease_s: float = LEASE_S,
        timer_s: float = TIMER_S,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._provider = provider
        self._owner = owner
        self._clock = clock
        self._context_of = context_of
        self._operations = operations
        self._sweep = sweep
        self._renewal = renewal or LoopRenewal(ledger)
        self._before_settle = before_settle
        self._telemetry = telemetry or NoTelemetry()
        self._hand_out = hand_out
        self._lease_s = lease_s
        self._timer_s = timer_s
        self._followers: dict[AttemptKey, AttemptFollower] = {}
        self._tasks: dict[AttemptKey, asyncio.Task[None]] = {}
        self._aftermath = Aftermath(lease_s=lease_s)
        self._ended_since_look: set[AttemptKey] = set()
        self._lease: PoolLease | None = None
        self._wake = asyncio.Event()
        self._may_be_asked = asyncio.Event()
        self._idle = asyncio.Event()
        self._is_draining = False
        self._must_look = False
        self._warned: dict[str, str] = {}
        self._stated = StatedAnswers(settings.name, ledger=ledger, clock=clock)
        self._topic = f"pool:{settings.name}"
        self._log = log.bind(pool=settings.name)

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def is_owned(self) -> bool:
        """Whether this process acts for the pool now."""
        return self._lease is not None and self._lease.holds()

    # -- life -----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Takes the pool whenever it is free and acts for it until cancelled. Its attempts run on after that."""
        try:
            while True:
                lease = self._lease = self._new_lease()
                await self._take(lease)
                taken_at = self._clock.boottime()
                try:
                    await self._own(lease)
                except Fenced as error:
                    self._log.error("pool_lost", error=error.message)
                    self._telemetry.lease_lost(self.name)
                finally:
                    await self._let_go()
                    await lease.release()
                if self._clock.boottime() - taken_at < TIMER_S:
                    await asyncio.sleep(TIMER_S)  # lost as soon as taken: it may go on like that
        finally:
            await self._aftermath.finish()

    async def _take(self, lease: PoolLease) -> None:
        """Returns once the pool is ours. One that an operator gave up while we did not answer is in our config all the
        same: here it is again."""
        while True:
            try:
                return await lease.take()
            except NotFound:
                self._log.warning("pool_given_up", cure="drop it from the config, if that was meant")
            try:
                await self._ledger.put_pool(self._settings)
            except LedgerUnavailable as error:
                self._log.error("ledger_unavailable", error=error.message)
            await asyncio.sleep(TIMER_S)

    def drain(self) -> None:
        """Takes nothing new from now on."""
        self._is_draining = True

    async def drained(self) -> None:
        """Returns when it follows nothing any more."""
        while self._followers:
            self._idle.clear()
            await self._idle.wait()

    async def _own(self, lease: PoolLease) -> None:
        """Acts for the pool until it is lost, wherever it stands then: a call that hangs keeps nothing going. Raises
        Fenced."""
        acting = asyncio.create_task(self._act(lease))
        losing = asyncio.create_task(lease.lost.wait())
        keeping = [
            asyncio.create_task(lease.keep()),
            asyncio.create_task(self._sweep_again_and_again(lease)),
            asyncio.create_task(self._fulfil_what_is_asked(lease)),
        ]
        try:
            await asyncio.wait({acting, losing}, return_when=asyncio.FIRST_COMPLETED)
            if acting.done():
                acting.result()
            raise Fenced(f"the lease of pool '{self._settings.name}' ended")
        finally:
            tasks = (acting, losing, *keeping)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _act(self, lease: PoolLease) -> None:
        """Turn after turn. Raises Fenced."""
        self._stated.forget()
        subscription = self._ledger.subscribe("ready", self._topic)
        listening: asyncio.Task[frozenset[str]] | None = None
        topics = frozenset({self._topic})
        try:
            await self._ledger.set_pool_health(lease.fence, health=PoolHealth.HEALTHY, message="")
            while True:
                await self._turn(lease, topics)
                if listening is None or listening.done():
                    listening = asyncio.create_task(subscription.wait(self._timer_s))
                topics = await self._next_topics(listening)
        finally:
            if listening is not None:
                listening.cancel()
            subscription.close()

    async def _next_topics(self, listening: asyncio.Task[frozenset[str]]) -> frozenset[str]:
        """Waits for a topic, the timer or an attempt's end."""
        waking = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({listening, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
        self._wake.clear()
        # No topic and no timer: an attempt ended. Its slot is free, and that is all there is to know.
        return listening.result() if listening.done() else frozenset({"ready"})

    async def _sweep_again_and_again(self, lease: PoolLease) -> None:
        """Destroys what no living attempt needs. A sweep that hangs is given up: the next one starts anew."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                async with asyncio.timeout(SWEEP_TIMEOUT_S):
                    await self._sweep.run(lease.fence)
            except Fenced:
                lease.lose()
                return
            except (RunyardError, TimeoutError) as error:
                self._log.warning("sweep_failed", error=str(error) or "it hung")
            except (
                Exception
            ):  # the sweeper must not stall (and with it what is left over): the next one starts anew
                self._log.exception("sweep_failed")

    async def _fulfil_what_is_asked(self, lease: PoolLease) -> None:
        """What operators ask may take long; it must not keep jobs waiting."""
        while True:
            await self._may_be_asked.wait()
            self._may_be_asked.clear()
            try:
                await self._operations.fulfil(self._settings.name, lease.fence)
            except Fenced:
                lease.lose()
                return
            except LedgerUnavailable as error:
                self._log.error("ledger_unavailable", error=error.message)

    async def _let_go(self) -> None:
        """Stops following; the attempts run on and are adopted by whoever owns the pool next."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._followers.clear()

    def _new_lease(self) -> PoolLease:
        return PoolLease(
            self._settings.name,
            ledger=self._ledger,
            owner=self._owner,
            clock=self._clock,
            renewal=self._renewal,
            lease_s=self._lease_s,
        )

    # -- one turn -------------------------------------------------------------------------------------------------
    async def _turn(self, lease: PoolLease, topics: frozenset[str]) -> None:
        """One pass over what there may be to do; over everything when the timer called (no topic). An unavailable
        ledger ends the pass, not the loop."""
        try:
            if not topics or self._topic in topics or self._must_look:
                await self._recover(lease)
                self._must_look = False
                self._may_be_asked.set()
            await self._dispatch(lease)
        except LedgerUnavailable as error:
            # It may have been a claim's answer that was lost: what it claimed takes room, so it is looked for first.
            self._must_look = True
            self._log.error("ledger_unavailable", error=error.message)
            self._telemetry.ledger_unavailable(self.name)
            await asyncio.sleep(TIMER_S)

    async def _recover(self, lease: PoolLease) -> None:
        """Follows every unfinished attempt that is not followed yet, and passes on cancels (also those of which the
        wake-up was lost: this is the timer's work too). What ended while the rows were on their way is not followed
        again: its place may be gone already, and run_job would start it anew. What was settled over its follower's head
        (an operator gave the pool up) is let go of."""
        self._ended_since_look.clear()
        followed = list(self._followers.values())
        unfinished = await self._ledger.list_unfinished(lease.fence)
        await self._drop_what_is_settled(followed, {claimed.attempt.key for claimed in unfinished})
        for claimed in unfinished:
            if claimed.attempt.key in self._ended_since_look:
                continue
            follower = self._followers.get(claimed.attempt.key)
            if follower is None:
                self._log.info("attempt_adopted", attempt=claimed.attempt.key.resource_name)
                self._follow(claimed, lease, is_adopted=True)
            elif claimed.job.cancel_requested_at is not None:
                self._aftermath.spawn(follower.cancel())

    async def _drop_what_is_settled(
        self, followed: list[AttemptFollower], unfinished: set[AttemptKey]
    ) -> None:
        """What was followed before the look and is not in it, without an outcome of its own: an operator gave it up."""
        for follower in followed:
            if (
                follower.key in unfinished
                or follower.key in self._ended_since_look
                or not follower.is_waiting
            ):
                continue
            attempt = await self._ledger.get_attempt(follower.key)
            if (attempt is None or attempt.outcome is not None) and follower.is_waiting:
                self._log.warning("attempt_settled_elsewhere", attempt=follower.key.resource_name)
                follower.settled_elsewhere()

    async def _dispatch(self, lease: PoolLease) -> None:
        if self._is_draining or not lease.holds() or not self._has_news():
            return
        classes = await self._ledger.list_demand(lease.fence)
        if not classes:
            self._telemetry.pool_answered(self.name, ())
            await self._tell_demand(lease, classes)  # a fleet shrinks by hearing that nothing waits
            return
        answers = await self._ask(classes)
        self._telemetry.pool_answered(self.name, answers.values())
        await self._stated.state(lease.fence, answers)
        rooms = claimable(classes, answers, now_at=self._clock.now())
        if rooms:
            await self._claim(lease, rooms)
        await self._tell_demand(lease, classes)

    def _has_news(self) -> bool:
        """A full pool need not look at each new job, only often enough to say to the waiting that it is full."""
        is_full = len(self._followers) >= self._settings.slots
        return not is_full or self._stated.is_due

    async def _ask(self, classes: list[ClassDemand]) -> dict[str, Availability]:
        """The pool's answer for each class that waits: ask before taking."""
        free, slots = self._free()
        answers = {}
        for demand in classes:
            place = await self._ask_place(demand)
            answers[demand.class_key] = placement.availability(
                demand.requirements, self._settings, free=free, slots_free=len(slots), place=place
            )
        return answers

    async def _ask_place(self, demand: ClassDemand) -> Availability:
        """A place that does not answer takes nothing now; what it runs is followed all the same."""
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                answer = await self._provider.can_dequeue(demand.requirements)
            self._warned.pop("place_not_asked", None)
            return answer
        except (ProviderError, TimeoutError) as error:
            why = str(error) or "its places do not answer"
            self._warn_once("place_not_asked", why)
            return soon(WaitCode.POOL_UNHEALTHY, why)

    async def _tell_demand(self, lease: PoolLease, classes: list[ClassDemand]) -> None:
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                await self._provider.handle_queue_size(
                    self._demand(classes), LeaseRecords(self._ledger, lease)
                )
            self._warned.pop("demand_not_told", None)
        except (ProviderError, TimeoutError) as error:
            self._warn_once("demand_not_told", str(error) or "no answer")

    def _warn_once(self, event: str, why: str) -> None:
        """A place that is away is asked in every turn, and that is no news in every turn."""
        if self._warned.get(event) != why:
            self._warned[event] = why
            self._log.warning(event, error=why)

    async def _claim(self, lease: PoolLease, rooms: Mapping[str, int]) -> None:
        free, slots = self._free()
        request = ClaimRequest(fence=lease.fence, free_slots=slots, rooms=rooms, budget=free)
        for claimed in await self._ledger.claim(request):
            self._log.info(
                "attempt_claimed",
                job=claimed.job.id,
                attempt=claimed.attempt.key.resource_name,
                slot=claimed.attempt.slot,
            )
            waited_s = claimed.attempt.claimed_at - claimed.job.queued_at
            self._telemetry.attempt_claimed(self.name, claimed.job.queue, waited_s=max(0.0, waited_s))
            self._follow(claimed, lease)

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
    def _follow(self, claimed: Claimed, lease: PoolLease, *, is_adopted: bool = False) -> None:
        follower = AttemptFollower(
            claimed,
            ledger=self._ledger,
            provider=self._provider,
            lease=lease,
            context=self._context_of(claimed, lease),
            before_settle=self._before_settle,
            telemetry=self._telemetry,
            hand_out=self._hand_out,
            is_adopted=is_adopted,
        )
        self._followers[follower.key] = follower
        self._tasks[follower.key] = asyncio.create_task(self._see_through(follower, lease))

    async def _see_through(self, follower: AttemptFollower, lease: PoolLease) -> None:
        try:
            await follower.run()
        except Fenced:
            lease.lose()
            return
        finally:
            self._ended_since_look.add(follower.key)
            self._followers.pop(follower.key, None)
            self._tasks.pop(follower.key, None)
            self._wake.set()
            if not self._followers:
                self._idle.set()
        if self._provider.capabilities.is_host_bound:  # nobody but this process can be its owner
            self._aftermath.spawn(follower.clear())
        else:
            self._aftermath.spawn_late(follower.clear)


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
