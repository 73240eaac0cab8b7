"""What a page of jobs out of a million costs."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from pathlib import Path

from runyard.bench.browsing import Browser
from runyard.bench.comparing import Comparison, in_turns, milliseconds, percentile
from runyard.bench.crowd import multiply_in_sqlite
from runyard.bench.throwaway import throwaway_service
from runyard.clock import SystemClock
from runyard.ledger.opening import create_ledger
from runyard.model.attempt import UID_LENGTH
from runyard.model.job import JobSpec, NewJob, Step
from runyard.model.queue import QueueSettings
from runyard.model.requirements import Requirements

SEEDS = 1000
TENANTS = 100
PAGE_S_P95 = 0.060
_ELSEWHERE = Requirements(labels={"gpu": "yes"})  # no pool here takes it: what waits stays
_ASKED = (
    ("all", ""),
    ("two states", "state=queued&state=canceled"),
    ("a queue", "queue=slow"),
    ("a tenant and a state", "tenant=tenant-7&state=canceled"),
    ("the last hour", "since=1h"),
    ("a text that one job in 256 has", "text=job-a7"),
    ("a text that none has", "text=nowhere"),
)


async def job_pages(*, jobs: int, rounds: int) -> list[Comparison]:
    """The list of 50 jobs as a browser asks for it, from the request to the last byte, for each kind of filter."""
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as folder:
        few, many = (Path(folder) / name for name in ("few.db", "many.db"))
        for path in (few, many):
            await _fill(path)
        await asyncio.to_thread(multiply_in_sqlite, many, seeds=SEEDS, times=jobs // SEEDS)
        async with (
            throwaway_service(slots=2, ledger_url=f"sqlite://{few}") as small,
            throwaway_service(slots=2, ledger_url=f"sqlite://{many}") as large,
            small.browse() as at_few,
            large.browse() as at_many,
        ):
            viewers = at_few, at_many
            return [await _page(viewers, name, query, jobs=jobs, rounds=rounds) for name, query in _ASKED]


async def _page(
    viewers: tuple[Browser, Browser], name: str, query: str, *, jobs: int, rounds: int
) -> Comparison:
    path = f"/jobs?{query}"
    few, many = viewers
    series = await in_turns(lambda: few.get_s(path), lambda: many.get_s(path), rounds=rounds)
    at_p95 = percentile(series[1], 0.95)
    return Comparison(
        name=f"the page of 50 jobs out of {jobs:,}: {name}",
        reference_name=f"the same page out of {SEEDS:,}",
        reference=series[0],
        subject=series[1],
        goal=f"at most {milliseconds(PAGE_S_P95)} at p95",
        is_met=at_p95 <= PAGE_S_P95,
        measured=f"{milliseconds(at_p95)} against {milliseconds(percentile(series[0], 0.95))} at p95",
    )


async def _fill(path: Path) -> None:
    """Through the port: jobs of two queues and many tenants, one half canceled."""
    ledger = create_ledger(f"sqlite://{path}", clock=SystemClock())
    await ledger.open()
    try:
        await ledger.put_queue(QueueSettings(name="slow"))
        uids = [secrets.token_hex(UID_LENGTH // 2) for _ in range(SEEDS)]
        for number, uid in enumerate(uids):
            spec = JobSpec(
                steps=(Step(name="step-1", command=("true",)),),
                queue="slow" if number % 10 == 0 else "default",
                tenant=f"tenant-{number % TENANTS}",
                requirements=_ELSEWHERE,
            )
            [answer] = await ledger.submit([NewJob(uid=uid, id=f"job-{uid}", spec=spec, spec_hash="bench")])
            if isinstance(answer, Exception):
                raise answer
        for uid in uids[::2]:
            await ledger.request_cancel(uid)
        await ledger.delete_events(
            before=await ledger.now() + 1.0, limit=10 * SEEDS
        )  # the copies bring their own
    finally:
        await ledger.close()
