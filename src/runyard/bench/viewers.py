"""What open pages cost the dispatcher, and how soon all who look see what changed."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from runyard.bench.browsing import Viewer
from runyard.bench.busy_ledger import fill_busy_ledger
from runyard.bench.comparing import Comparison, compare_ratio, in_turns, median, milliseconds, percentile
from runyard.bench.service_measures import SMALL, dispatch_s
from runyard.bench.throwaway import throwaway_service
from runyard.sdk import AsyncClient

OPEN_PAGES = 200
WATCHED = ("/", "/jobs", "/queues", "/pools/local")
VIEWERS = 100
NEWS_S_P95 = 1.0
JOBS, RUNNING = 100_000, 10_000
TRAFFIC_EVERY_S = 0.1
_WAITS = {  # no pool takes it: only the submit moves the page
    "steps": [{"command": ["true"]}],
    "requirements": {"labels": {"gpu": "yes"}},
    "limits": {"queue": "1h"},
}


async def dispatch_under_viewers(*, rounds: int) -> Comparison:
    """Submit until claimed, on a service at which nobody looks and on one with 200 open pages, by turns: each job moves
    the pages, so the next one meets what that costs."""
    async with (
        throwaway_service(slots=2) as alone_service,
        throwaway_service(slots=2) as watched_service,
        alone_service.client() as alone,
        watched_service.client() as watched,
        watched_service.browse() as browser,
    ):
        paths = [WATCHED[number % len(WATCHED)] for number in range(OPEN_PAGES)]
        async with browser.watch(paths) as viewers, _reading_on(viewers):
            series = await in_turns(lambda: dispatch_s(alone), lambda: dispatch_s(watched), rounds=rounds)
    return compare_ratio(
        f"submit -> dispatch with {OPEN_PAGES} pages open", "nobody looks", series, bound=1.2
    )


async def news_to_viewers(*, rounds: int) -> Comparison:
    """From the answer to a submit until the last of 100 overviews has the job, on a ledger of 100,000 jobs of which
    10,000 run, while others start and end; by turns with one overview of an idle service."""
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as folder:
        path = Path(folder) / "busy.sqlite"
        await fill_busy_ledger(path, jobs=JOBS)
        async with (
            throwaway_service(slots=2) as idle_service,
            throwaway_service(slots=2, ledger_url=f"sqlite://{path}") as busy_service,
            idle_service.client() as idle,
            busy_service.client() as busy,
            idle_service.browse() as one,
            busy_service.browse() as many,
            one.watch(["/"]) as single,
            many.watch(["/"] * VIEWERS) as all_,
            _traffic(busy),
        ):
            series = await in_turns(lambda: _news_s(idle, single), lambda: _news_s(busy, all_), rounds=rounds)
    reference, subject = series
    at_p95 = percentile(subject, 0.95)
    return Comparison(
        name=f"submitted -> seen by the last of {VIEWERS} overviews, {RUNNING:,} of {JOBS:,} jobs running",
        reference_name="one overview of an idle service",
        reference=reference,
        subject=subject,
        goal=f"at most {milliseconds(NEWS_S_P95)} at p95",
        is_met=at_p95 <= NEWS_S_P95,
        measured=f"{milliseconds(median(subject))} against {milliseconds(median(reference))} at p50, "
        f"{milliseconds(at_p95)} against {milliseconds(percentile(reference, 0.95))} at p95",
    )


async def _news_s(client: AsyncClient, viewers: Sequence[Viewer]) -> float:
    name = f"news-{secrets.token_hex(8)}"
    seen = [asyncio.create_task(viewer.shows(lambda state: name.encode() in state)) for viewer in viewers]
    await client.submit(_WAITS, id=name)
    submitted_at = time.perf_counter()
    return max(0.0, max(await asyncio.gather(*seen)) - submitted_at)


@contextlib.asynccontextmanager
async def _traffic(client: AsyncClient) -> AsyncIterator[None]:
    """Jobs that start and end all the while."""

    async def go_on() -> None:
        while True:
            await client.submit({"steps": [{"command": ["true"]}], "requirements": SMALL})
            await asyncio.sleep(TRAFFIC_EVERY_S)

    going = asyncio.create_task(go_on())
    try:
        yield
    finally:
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)


@contextlib.asynccontextmanager
async def _reading_on(viewers: Sequence[Viewer]) -> AsyncIterator[None]:
    reading = [asyncio.create_task(viewer.reads_on()) for viewer in viewers]
    try:
        yield
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
