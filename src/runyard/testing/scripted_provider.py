"""A provider whose world is a dictionary and whose every answer is in the test's hands.

It keeps the port's promises (idempotent by name, cancel leaves it running) in a `World` that outlives the provider
object. Misbehaviour is asked for by name: call by call (`faults`, `run_errors` and their kin) or by a function that is
asked before each call (`misbehave`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

from runyard.model.attempt import AttemptKey
from runyard.model.errors import Unreachable
from runyard.model.finding import Finding
from runyard.model.outcome import Outcome, lost
from runyard.model.pool import Availability, AvailabilityKind, Budget, Demand, Supply, never, now
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.port import (
    AttemptRequest,
    Capabilities,
    PoolShape,
    Records,
    ResourceListing,
    RunContext,
)
from runyard.testing.misbehaviour import Fault, Verb, deliver
from runyard.testing.plays import CANCELED
from runyard.testing.scripted_world import Place, World

__all__ = ["CANCELED", "Place", "ScriptedProvider", "World"]

ARCH = "amd64"
FLAWLESS = Fault()
CREATE_DEADLINE_S = 1.0

T = TypeVar("T")
Misbehave = Callable[[Verb, str], Fault | None]


class ScriptedProvider:
    """`run_errors`, `stop_errors`, `destroy_errors` and `list_errors` are raised one by one by the next calls, before
    any effect, `run_errors_after_start` after it; `faults` holds the coming faults of each verb."""

    def __init__(
        self,
        world: World,
        *,
        shape: PoolShape | None = None,
        answer: Availability | None = None,
        is_far: bool = False,
    ) -> None:
        self.world = world
        self._is_far = is_far
        self._shape = shape or PoolShape(slots=8, budget=Budget(cpu_millis=64_000, memory_bytes=64 << 30))
        self.answer = answer or now(1_000)
        self.run_errors: list[Exception] = []
        self.run_errors_after_start: list[Exception] = []
        self.stop_errors: list[Exception] = []
        self.destroy_errors: list[Exception] = []
        self.list_errors: list[Exception] = []
        self.faults: dict[Verb, list[Fault]] = defaultdict(list)
        self.misbehave: Misbehave = lambda verb, name: None
        self.lists_completely = True
        self.stops_at_once = True
        self.demands: list[Demand] = []
        self._is_down = False
        self._following: set[asyncio.Future[None]] = set()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            isolation=Isolation.CONTAINER,
            is_host_bound=not self._is_far,
            labels={"arch": ARCH},
            description="a script",
        )

    @property
    def shape(self) -> PoolShape:
        return self._shape

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    # -- the provider's own process -------------------------------------------------------------------------------
    def crash(self) -> None:
        """Whoever calls or follows gets no answer any more; places go on."""
        self._is_down = True
        for following in self._following:
            if not following.done():
                following.set_exception(Unreachable("the provider's process died"))
        self._following.clear()

    def recover(self) -> None:
        self._is_down = False

    # -- the port -------------------------------------------------------------------------------------------------
    async def can_dequeue(self, requirements: Requirements) -> Availability:
        answer = self.answer
        if answer.kind is AvailabilityKind.NOW and requirements.arch not in (None, ARCH):
            answer = never(f"this pool has arch {ARCH}, the job asks for {requirements.arch}")
        return await self._ask(Verb.CAN_DEQUEUE, "", lambda: answer)

    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        if self.run_errors:
            raise self.run_errors.pop(0)
        if attempt.key.resource_name not in self.world.places and not context.may_create(CREATE_DEADLINE_S):
            raise Unreachable("the lease of the pool ends before a create would")
        place = await self._ask(Verb.RUN, attempt.key.resource_name, lambda: self.world.run(attempt))
        if self.run_errors_after_start:
            raise self.run_errors_after_start.pop(0)
        if place.starts:
            await context.record_phase("preparing", place.created_at)
            await context.record_phase("running", place.started_at)
            if place.play.prints:
                await context.log.append("000", "stdout", 0, place.play.prints)
        while not place.is_told:
            if self.world.places.get(attempt.key.resource_name) is not place:
                return lost("its place was destroyed", was_seen=True)
            await self._follow(place)
        assert place.outcome is not None
        if place.play.outputs:
            await context.record_outputs(place.play.outputs)
        return place.outcome

    async def stop_job(self, key: AttemptKey, *, grace_s: float) -> None:
        if self.stop_errors:
            raise self.stop_errors.pop(0)
        place = self.world.places.get(key.resource_name)
        if place is not None and not self.stops_at_once:
            return
        await self._ask(Verb.STOP, key.resource_name, lambda: self.world.stop(key, grace_s=grace_s))

    async def handle_queue_size(self, demand: Demand, records: Records) -> Supply:
        def note() -> Supply:
            self.demands.append(demand)
            return Supply(slots=self._shape.slots)

        return await self._ask(Verb.QUEUE_SIZE, "", note)

    async def check(self) -> Sequence[Finding]:
        return (Finding(name="script", ok=True, message="it plays"),)

    async def list_resources(self) -> ResourceListing:
        if self.list_errors:
            raise self.list_errors.pop(0)
        fault = self._next_fault(Verb.LIST, "") or FLAWLESS
        self._need_up()
        resources = self.world.list() if fault == FLAWLESS else await deliver(fault, self.world.list)
        kept = resources[: len(resources) - round(len(resources) * fault.forgets)]
        is_complete = self.lists_completely and not (fault.forgets and fault.admits)
        return ResourceListing(resources=kept, is_complete=is_complete)

    async def destroy_resource(self, name: str) -> None:
        if self.destroy_errors:
            raise self.destroy_errors.pop(0)
        await self._ask(Verb.DESTROY, name, lambda: self.world.destroy(name))

    # -- inside ---------------------------------------------------------------------------------------------------
    async def _ask(self, verb: Verb, name: str, effect: Callable[[], T]) -> T:
        self._need_up()
        fault = self._next_fault(verb, name)
        if fault is None:
            return effect()
        return await deliver(fault, effect)

    def _next_fault(self, verb: Verb, name: str) -> Fault | None:
        if self.faults[verb]:
            return self.faults[verb].pop(0)
        return self.misbehave(verb, name)

    def _need_up(self) -> None:
        if self._is_down:
            raise Unreachable("the provider's process does not answer")

    async def _follow(self, place: Place) -> None:
        self._need_up()
        following: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place.watching.append(following)
        self._following.add(following)
        try:
            await following
        finally:
            self._following.discard(following)
