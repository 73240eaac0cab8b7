"""A provider whose world is a dictionary and whose every answer is in the test's hands.

It keeps the port's promises (idempotent by name, cancel leaves it running) in a `World` that outlives the provider
object, as real places outlive the service. Misbehaviour is asked for by name, call by call.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from runyard.model.attempt import AttemptKey
from runyard.model.finding import Finding
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode
from runyard.model.pool import Availability, Budget, Demand, Supply, now
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.port import (
    AttemptRequest,
    Capabilities,
    PoolShape,
    Resource,
    ResourceListing,
    RunContext,
)


@dataclass(slots=True)
class Place:
    """Where one attempt runs. `starts` counts how often its command really began: more than once breaks the promise."""

    request: AttemptRequest
    created_at: float
    starts: int = 0
    outcome: Outcome | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class World:
    """All places there are; survives the provider objects that come and go over it."""

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.stopped_before_start: set[str] = set()
        self.started = asyncio.Event()
        self.starts: dict[str, int] = defaultdict(int)

    def end(self, key: AttemptKey, outcome: Outcome) -> None:
        """The attempt's command ends, whether anybody watches or not."""
        place = self.places[key.resource_name]
        place.outcome = outcome
        place.changed.set()

    @property
    def running(self) -> list[AttemptKey]:
        return [place.request.key for place in self.places.values() if place.outcome is None]


CANCELED = Outcome(
    kind=OutcomeKind.CANCELED, reason=Reason(code=ReasonCode.CANCELED, message="canceled by request")
)


class ScriptedProvider:
    """`run_errors`, `stop_errors`, `destroy_errors` and `list_errors` are raised one by one by the next calls."""

    def __init__(
        self, world: World, *, shape: PoolShape | None = None, answer: Availability | None = None
    ) -> None:
        self.world = world
        self._shape = shape or PoolShape(slots=8, budget=Budget(cpu_millis=64_000, memory_bytes=64 << 30))
        self.answer = answer or now(1_000)
        self.run_errors: list[Exception] = []
        self.run_errors_after_start: list[Exception] = []
        self.stop_errors: list[Exception] = []
        self.destroy_errors: list[Exception] = []
        self.list_errors: list[Exception] = []
        self.lists_completely = True
        self.stops_at_once = True
        self.demands: list[Demand] = []

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(isolation=Isolation.CONTAINER, description="a script")

    @property
    def shape(self) -> PoolShape:
        return self._shape

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def can_dequeue(self, requirements: Requirements) -> Availability:
        return self.answer

    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        if self.run_errors:
            raise self.run_errors.pop(0)
        name = attempt.key.resource_name
        if name in self.world.stopped_before_start:
            return CANCELED
        place = self.world.places.get(name)
        if place is None:
            place = Place(request=attempt, created_at=0.0)
            self.world.places[name] = place
        if not place.starts:
            place.starts += 1
            self.world.starts[name] += 1
            self.world.started.set()
        if self.run_errors_after_start:
            raise self.run_errors_after_start.pop(0)
        await context.record_phase("running", 1.0)
        while place.outcome is None:
            await place.changed.wait()
        return place.outcome

    async def stop_job(self, key: AttemptKey, *, grace_s: float) -> None:
        if self.stop_errors:
            raise self.stop_errors.pop(0)
        if key.resource_name not in self.world.places:
            self.world.stopped_before_start.add(key.resource_name)
        elif self.stops_at_once and self.world.places[key.resource_name].outcome is None:
            self.world.end(key, CANCELED)

    async def handle_queue_size(self, demand: Demand) -> Supply:
        self.demands.append(demand)
        return Supply(slots=self._shape.slots)

    async def check(self) -> Sequence[Finding]:
        return (Finding(name="script", ok=True, message="it plays"),)

    async def list_resources(self) -> ResourceListing:
        if self.list_errors:
            raise self.list_errors.pop(0)
        resources = tuple(
            Resource(name=name, created_at=place.created_at, is_running=place.outcome is None)
            for name, place in self.world.places.items()
        )
        return ResourceListing(resources=resources, is_complete=self.lists_completely)

    async def destroy_resource(self, name: str) -> None:
        if self.destroy_errors:
            raise self.destroy_errors.pop(0)
        self.world.places.pop(name, None)
        self.world.stopped_before_start.discard(name)
