"""What a page costs with a million jobs in the ledger, on either database, against a thousand: the list of 50 jobs by
each kind of filter, and the pages that say who shares what."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from pathlib import Path

from runyard.bench.browsing import Browser
from runyard.bench.comparing import Comparison, in_turns, milliseconds, percentile
from runyard.bench.crowd import multiply_in_postgres, multiply_in_sqlite
from runyard.bench.throwaway import throwaway_service
from runyard.bench.throwaway_postgres import throwaway_postgres
from runyard.clock import SystemClock
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import ClaimRequest, Ledger
from runyard.model.attempt import UID_LENGTH
from runyard.model.job import Job, JobSpec, JobState, NewJob, Step
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, Usage, succeeded
from runyard.model.pool import Budget, PoolSettings
from runyard.model.queue import QueueSettings
from runyard.model.requirements import Isolation, Requirements
from runyard.model.verdict import Final, Verdict

SEEDS = 1000
TENANTS = 100
TEAMS = 50
ATTEMPTED = 300  # of the seeds; half of the others are canceled
PAGE_S_P95 = 0.060
POOL = "elsewhere"
_ELSEWHERE = Requirements(labels={"gpu": "yes"})  # no pool of the service takes it: what waits stays
_PLENTY = Budget(cpu_millis=10**9, memory_bytes=1 << 60)
_ASKED = (
    ("all", "/jobs"),
    ("two states", "/jobs?state=queued&state=canceled"),
    ("failed", "/jobs?state=failed"),
    ("a queue", "/jobs?queue=slow"),
    ("a tenant and a state", "/jobs?tenant=tenant-7&state=canceled"),
    ("a pool", f"/jobs?pool={POOL}"),
    ("a pool, failed", f"/jobs?pool={POOL}&state=failed"),
    ("the last hour", "/jobs?since=1h"),
    ("a label that one job in 50 has", "/jobs?label=team%3Dteam-7"),
    ("that label, failed", "/jobs?label=team%3Dteam-7&state=failed"),
    ("a label that all have, and one that one in 1,000 has", "/jobs?label=ci%3Dyes&label=kind%3Drare"),
    ("a label that all have, in a state that none is in", "/jobs?label=ci%3Dyes&state=lost"),
    ("a text that one job in 256 has", "/jobs?text=job-a7"),
    ("a text that none has", "/jobs?text=nowhere"),
    ("a text that none has, failed, in a pool", f"/jobs?text=nowhere&pool={POOL}&state=failed"),
    ("a text that none has, with a label that all have", "/jobs?text=nowhere&label=ci%3Dyes"),
    ("the overview", "/"),
    ("the page of a queue", "/queues/default"),
    ("the page of a tenant", "/tenants/tenant-7"),
)


async def on_sqlite(*, jobs: int, rounds: int) -> list[Comparison]:
    """As a browser asks, from the request to the last byte."""
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as folder:
        few, many = (Path(folder) / name for name in ("few.db", "many.db"))
        for path in (few, many):
            await fill(f"sqlite://{path}")
        await asyncio.to_thread(multiply_in_sqlite, many, seeds=SEEDS, times=jobs // SEEDS)
        return await compare_pages("SQLite", f"sqlite://{few}", f"sqlite://{many}", jobs=jobs, rounds=rounds)


async def on_postgres(*, jobs: int, rounds: int) -> list[Comparison]:
    """The same set on a server of its own, on the same cores."""
    async with throwaway_postgres() as server:
        few, many = server.new_database(), server.new_database()
        for url, times in ((few, 1), (many, jobs // SEEDS)):
            await fill(url)
            await asyncio.to_thread(multiply_in_postgres, server, url, seeds=SEEDS, times=times)
        return await compare_pages("PostgreSQL", few, many, jobs=jobs, rounds=rounds)


async def compare_pages(
    database: str, few_url: str, many_url: str, *, jobs: int, rounds: int
) -> list[Comparison]:
    """Each page out of `jobs`, by turns with the same out of SEEDS."""
    async with (
        throwaway_service(slots=2, ledger_url=few_url) as few,
        throwaway_service(slots=2, ledger_url=many_url) as many,
        few.browse() as at_few,
        many.browse() as at_many,
    ):
        crowd = f"with {jobs:,} jobs, {database}"
        return [
            await _page((at_few, at_many), f"{name}, {crowd}", path, rounds=rounds) for name, path in _ASKED
        ]


async def _page(viewers: tuple[Browser, Browser], name: str, path: str, *, rounds: int) -> Comparison:
    few, many = viewers
    series = await in_turns(lambda: few.get_s(path), lambda: many.get_s(path), rounds=rounds)
    at_p95 = percentile(series[1], 0.95)
    return Comparison(
        name=name,
        reference_name=f"the same with {SEEDS:,}",
        reference=series[0],
        subject=series[1],
        goal=f"at most {milliseconds(PAGE_S_P95)} at p95",
        is_met=at_p95 <= PAGE_S_P95,
        measured=f"{milliseconds(at_p95)} against {milliseconds(percentile(series[0], 0.95))} at p95",
    )


# -- the jobs -----------------------------------------------------------------------------------------------------
async def fill(url: str) -> None:
    """Through the port: SEEDS jobs of two queues and many tenants, of which some were tried, and some canceled."""
    ledger = create_ledger(url, clock=SystemClock())
    await ledger.open()
    try:
        await ledger.put_queue(QueueSettings(name="slow"))
        new = [_new_job(number) for number in range(SEEDS)]
        for answer in await ledger.submit(new):
            if isinstance(answer, Exception):
                raise answer
        tried = await _try_some(ledger)
        for one in [one for one in new if one.uid not in tried][::2]:
            await ledger.request_cancel(one.uid)
        await ledger.delete_events(
            before=await ledger.now() + 1.0, limit=10 * SEEDS
        )  # the copies bring their own
    finally:
        await ledger.close()


def _new_job(number: int) -> NewJob:
    uid = secrets.token_hex(UID_LENGTH // 2)
    spec = JobSpec(
        steps=(Step(name="step-1", command=("true",)),),
        queue="slow" if number % 10 == 0 else "default",
        tenant=f"tenant-{number % TENANTS}",
        labels={"ci": "yes", "team": f"team-{number % TEAMS}", **({} if number else {"kind": "rare"})},
        requirements=_ELSEWHERE,
    )
    return NewJob(uid=uid, id=f"job-{uid}", spec=spec, spec_hash="bench")


async def _try_some(ledger: Ledger) -> frozenset[str]:
    """ATTEMPTED of them run in a pool of ours, every other one fails. Returns their uids."""
    await ledger.put_pool(
        PoolSettings(
            name=POOL, provider="local", slots=ATTEMPTED, budget=_PLENTY, isolation=Isolation.CONTAINER
        )
    )
    fence = await ledger.acquire_pool(POOL, owner="bench", lease_s=600)
    assert fence is not None, "only we own it"
    rooms = {_ELSEWHERE.class_key(): ATTEMPTED}
    claimed = await ledger.claim(
        ClaimRequest(fence=fence, free_slots=tuple(range(ATTEMPTED)), rooms=rooms, budget=_PLENTY)
    )
    now = await ledger.now()
    for number, one in enumerate(claimed):
        outcome = _FAILED if number % 2 else succeeded(_USAGE)
        await ledger.settle(fence, one.attempt.key, outcome, decide=_final, phases={"running": now})
    await ledger.release_pool(fence)
    return frozenset(one.job.uid for one in claimed)


_USAGE = Usage(wall_s=1.0)
_FAILED = Outcome(
    kind=OutcomeKind.FAILED,
    exit_code=1,
    reason=Reason(code=ReasonCode.EXIT, message="exit code 1", step="step-1"),
    usage=_USAGE,
)


def _final(job: Job, outcome: Outcome, now: float) -> Verdict:
    return Final(state=JobState(outcome.kind.value), reason=outcome.reason)
