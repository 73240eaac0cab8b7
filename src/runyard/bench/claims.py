"""What one fair claim costs with a million jobs queued, on either database, against a thousand: the ledger alone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runyard.bench.comparing import Comparison, compare_ratio, in_turns
from runyard.bench.crowd import multiply_in_postgres, multiply_in_sqlite
from runyard.bench.throwaway_postgres import throwaway_postgres
from runyard.clock import SystemClock
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import ClaimRequest, Ledger
from runyard.model.attempt import UID_LENGTH
from runyard.model.job import Job, JobSpec, JobState, NewJob, Step
from runyard.model.outcome import Outcome, Usage, succeeded
from runyard.model.pool import Budget, Fence, PoolSettings
from runyard.model.requirements import Isolation, Requirements
from runyard.model.verdict import Final, Verdict

TENANTS = 1000
FEW = 1000
BATCH = 1000
WARM_UP = 10
POOL = "bench"
OURS = Requirements()
FOREIGN = Requirements(labels={"gpu": "yes"})
_STEPS = (Step(name="step-1", command=("true",)),)
_PLENTY = Budget(cpu_millis=10**9, memory_bytes=1 << 60)


async def claims_on_sqlite(*, queued: int, rounds: int) -> list[Comparison]:
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as folder:
        few, many = (Path(folder) / name for name in ("few.db", "many.db"))
        await fill(f"sqlite://{few}", FEW)
        await fill(f"sqlite://{many}", FEW)
        await asyncio.to_thread(multiply_in_sqlite, many, seeds=FEW, times=queued // FEW)
        return await _compare("SQLite", f"sqlite://{few}", f"sqlite://{many}", queued=queued, rounds=rounds)


async def claims_on_postgres(*, queued: int, rounds: int) -> list[Comparison]:
    async with throwaway_postgres() as server:
        few, many = server.new_database(), server.new_database()
        await fill(few, FEW)
        await fill(many, FEW)
        await asyncio.to_thread(multiply_in_postgres, server, few, seeds=FEW, times=1)
        await asyncio.to_thread(multiply_in_postgres, server, many, seeds=FEW, times=queued // FEW)
        return await _compare("PostgreSQL", few, many, queued=queued, rounds=rounds)


async def fill(url: str, count: int) -> None:
    """Through the port, as users would; round robin over the tenants."""
    async with _opened(url) as waiting:
        for start in range(0, count, BATCH):
            await waiting.submit(OURS, range(start, min(start + BATCH, count)))


async def _compare(
    database: str, few_url: str, many_url: str, *, queued: int, rounds: int
) -> list[Comparison]:
    crowd = f"one fair claim with {queued:,} queued jobs of {TENANTS:,} tenants, {database}"
    async with _opened(few_url) as few, _opened(many_url) as many:
        await many.submit(FOREIGN, range(FEW))
        await in_turns(lambda: few.claim_s(OURS), lambda: many.claim_s(OURS), rounds=WARM_UP)
        same = await in_turns(lambda: few.claim_s(OURS), lambda: many.claim_s(OURS), rounds=rounds)
        other = await in_turns(lambda: few.claim_s(OURS), lambda: many.claim_s(FOREIGN), rounds=rounds)
    reference = f"the same with {FEW:,} queued"
    return [
        compare_ratio(crowd, reference, same, bound=1.5),
        compare_ratio(f"{crowd}, all of a class that the pool cannot take", reference, other, bound=1.5),
    ]


@dataclass(slots=True)
class _Waiting:
    """A ledger in which jobs wait, and the pool that claims them one by one."""

    ledger: Ledger
    fence: Fence
    submitted: int = 0

    async def claim_s(self, requirements: Requirements) -> float:
        """One claim by a pool that takes this class only. What it got is ended and replaced, outside of the time."""
        request = ClaimRequest(
            fence=self.fence, free_slots=(0,), rooms={requirements.class_key(): 1}, budget=_PLENTY
        )
        began = time.perf_counter()
        [claimed] = await self.ledger.claim(request)
        took_s = time.perf_counter() - began
        await self.ledger.settle(self.fence, claimed.attempt.key, succeeded(Usage(wall_s=1.0)), decide=_final)
        await self.submit(requirements, [self.submitted])
        return took_s

    async def submit(self, requirements: Requirements, numbers: Sequence[int]) -> None:
        jobs = []
        for number in numbers:
            spec = JobSpec(steps=_STEPS, tenant=f"tenant-{number % TENANTS}", requirements=requirements)
            uid = secrets.token_hex(UID_LENGTH // 2)
            jobs.append(NewJob(uid=uid, id=f"job-{uid}", spec=spec, spec_hash="bench"))
        for answer in await self.ledger.submit(jobs):
            if isinstance(answer, Exception):
                raise answer
        self.submitted += len(jobs)


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncIterator[_Waiting]:
    ledger = create_ledger(url, clock=SystemClock())
    await ledger.open()
    try:
        settings = PoolSettings(
            name=POOL, provider="local", slots=1, budget=_PLENTY, isolation=Isolation.CONTAINER
        )
        await ledger.put_pool(settings)
        fence = await ledger.acquire_pool(POOL, owner="bench", lease_s=86_400)
        assert fence is not None, "only we own it"
        yield _Waiting(ledger, fence)
    finally:
        await ledger.close()


def _final(job: Job, outcome: Outcome, now: float) -> Verdict:
    return Final(state=JobState.SUCCEEDED)
