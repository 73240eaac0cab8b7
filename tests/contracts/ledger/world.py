"""What the contract's tests are told with: jobs, pools and moments that are valid by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runyard.ledger.port import Claimed, ClaimRequest, Ledger, Submitted
from runyard.model.job import Job, JobSpec, JobState, Limits, NewJob, Step
from runyard.model.outcome import Outcome, OutcomeKind, Usage, succeeded
from runyard.model.pool import Budget, Fence, PoolSettings
from runyard.model.requirements import Isolation, Requirements
from runyard.model.verdict import Decide, Final, Requeue, RetryCost, Verdict

SMALL = Requirements()
BIG = Requirements(cpu_millis=4000, memory_bytes=8 << 30)
PLENTY = Budget(cpu_millis=10**9, memory_bytes=1 << 60)


class ManualClock:
    """Time that only the test moves."""

    def __init__(self, at: float = 1_000_000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def boottime(self) -> float:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += seconds


def new_job(number: int, *, id: str | None = None, spec_hash: str = "hash", **spec: Any) -> NewJob:
    spec.setdefault("steps", (Step(name="test", command=("true",)),))
    return NewJob(uid=f"{number:016x}", id=id or f"job-{number}", spec=JobSpec(**spec), spec_hash=spec_hash)


def pool_settings(name: str = "local", **changes: Any) -> PoolSettings:
    shape: dict[str, Any] = {"slots": 1000, "budget": PLENTY, "isolation": Isolation.CONTAINER}
    return PoolSettings(name=name, provider="local", **(shape | changes))


def finish(job: Job, outcome: Outcome, now: float) -> Verdict:
    """The decision that retries nothing."""
    return Final(state=JobState(outcome.kind.value), reason=outcome.reason)


def requeue(*, keeps_place: bool = False, after_s: float | None = None) -> Decide:
    def decide(job: Job, outcome: Outcome, now: float) -> Verdict:
        if job.cancel_requested_at is not None:
            return Final(state=JobState.CANCELED)
        return Requeue(
            cost=RetryCost.INFRASTRUCTURE,
            keeps_place=keeps_place,
            not_before=None if after_s is None else now + after_s,
        )

    return decide


@dataclass
class World:
    ledger: Ledger
    clock: ManualClock
    made: int = 0
    slots: int = 0
    fences: dict[str, Fence] = field(default_factory=dict)

    async def submit(self, id: str | None = None, *, limits: Limits | None = None, **spec: Any) -> Job:
        [answer] = await self.try_submit(id, limits=limits or Limits(), **spec)
        assert isinstance(answer, Submitted), answer
        return answer.job

    async def try_submit(self, id: str | None = None, **spec: Any) -> list[Submitted | Exception]:
        self.made += 1
        return await self.ledger.submit([new_job(self.made, id=id, **spec)])

    async def submit_many(self, count: int, **spec: Any) -> list[Job]:
        jobs = [new_job(self.made + i + 1, **spec) for i in range(count)]
        self.made += count
        answers = await self.ledger.submit(jobs)
        return [answer.job for answer in answers if isinstance(answer, Submitted)]

    async def own(self, name: str = "local", **changes: Any) -> Fence:
        await self.ledger.put_pool(pool_settings(name, **changes))
        fence = await self.ledger.acquire_pool(name, owner="me", lease_s=30)
        assert fence is not None
        self.fences[name] = fence
        return fence

    async def claim(
        self,
        count: int = 1,
        *,
        pool: str = "local",
        rooms: Mapping[str, int] | None = None,
        budget: Budget = PLENTY,
        slots: tuple[int, ...] | None = None,
    ) -> list[Claimed]:
        if pool not in self.fences:
            await self.own(pool)
        if slots is None:
            slots = tuple(range(self.slots, self.slots + count))
            self.slots += count
        if rooms is None:
            rooms = {SMALL.class_key(): 10_000, BIG.class_key(): 10_000}
        return await self.ledger.claim(
            ClaimRequest(fence=self.fences[pool], free_slots=slots, rooms=rooms, budget=budget)
        )

    async def run(self, claimed: Claimed) -> None:
        fence = self.fences[claimed.attempt.pool]
        await self.ledger.record_phases(fence, claimed.attempt.key, {"running": self.clock.now()})

    async def settle(
        self,
        claimed: Claimed,
        outcome: Outcome | None = None,
        *,
        wall_s: float = 10.0,
        decide: Decide = finish,
        **more: Any,
    ) -> Job | None:
        outcome = outcome or succeeded(Usage(wall_s=wall_s))
        fence = self.fences[claimed.attempt.pool]
        return await self.ledger.settle(fence, claimed.attempt.key, outcome, decide=decide, **more)

    async def job(self, uid: str) -> Job:
        job = await self.ledger.get_job(uid)
        assert job is not None
        return job

    async def states(self, uid: str) -> list[str]:
        """All that the feed says of a job."""
        events = await self.ledger.list_events(after=0, limit=10_000)
        return [event.state for event in events if event.uid == uid]


def failed() -> Outcome:
    return Outcome(kind=OutcomeKind.FAILED, exit_code=1, usage=Usage(wall_s=10.0))
