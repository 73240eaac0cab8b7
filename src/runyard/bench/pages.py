"""What the operator pages cost: a page of jobs out of a million, and what two hundred viewers cost the dispatcher."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from runyard.bench.comparing import Comparison, compare_ratio, in_turns, milliseconds, percentile
from runyard.bench.crowd import multiply_in_sqlite
from runyard.bench.service_measures import dispatch_s
from runyard.bench.throwaway import ThrowawayService, throwaway_service
from runyard.clock import SystemClock
from runyard.ledger.opening import create_ledger
from runyard.model.attempt import UID_LENGTH
from runyard.model.job import JobSpec, NewJob, Step
from runyard.model.queue import QueueSettings
from runyard.model.requirements import Requirements

SEEDS = 1000
TENANTS = 100
PAGE_S_P95 = 0.060
VIEWERS = 200
WATCHED = ("/", "/jobs", "/queues", "/pools/local")
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
        ):
            viewers = await asyncio.to_thread(_Browser, small), await asyncio.to_thread(_Browser, large)
            return [await _page(viewers, name, query, jobs=jobs, rounds=rounds) for name, query in _ASKED]


async def _page(
    viewers: tuple[_Browser, _Browser], name: str, query: str, *, jobs: int, rounds: int
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


async def dispatch_under_viewers(*, rounds: int) -> Comparison:
    """Submit until claimed, on a service at which nobody looks and on one with 200 open pages, by turns: each job moves
    the pages, so the next one meets what that costs."""
    async with (
        throwaway_service(slots=2) as alone_service,
        throwaway_service(slots=2) as watched_service,
        alone_service.client() as alone,
        watched_service.client() as watched,
        _viewers(await asyncio.to_thread(_Browser, watched_service), VIEWERS),
    ):
        series = await in_turns(lambda: dispatch_s(alone), lambda: dispatch_s(watched), rounds=rounds)
    return compare_ratio(f"submit -> dispatch with {VIEWERS} pages open", "nobody looks", series, bound=1.2)


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


class _Browser:
    """Signed in, one request at a time on one connection."""

    def __init__(self, service: ThrowawayService) -> None:
        self.address = urlsplit(service.url)
        assert self.address.hostname is not None
        self._connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=60)
        token = (service.data / "admin.token").read_text().strip()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        self._connection.request("POST", "/sign-in", urlencode({"token": token}), headers)
        answer = self._connection.getresponse()
        answer.read()
        self.cookie = (answer.getheader("set-cookie") or "").partition(";")[0]

    async def get_s(self, path: str) -> float:
        return await asyncio.to_thread(self._get_s, path)

    def _get_s(self, path: str) -> float:
        began = time.perf_counter()
        self._connection.request("GET", path, headers={"Cookie": self.cookie})
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def _viewers(browser: _Browser, count: int) -> AsyncIterator[None]:
    """That many open pages; each has its first state before this is entered."""
    async with contextlib.AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(_open_page(browser, WATCHED[number % len(WATCHED)]))
            for number in range(count)
        ]
        await asyncio.gather(*(reader.readuntil(b"event: page") for reader in readers))
        reading = [asyncio.create_task(_read_on(reader)) for reader in readers]
        try:
            yield
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)


@contextlib.asynccontextmanager
async def _open_page(browser: _Browser, path: str) -> AsyncIterator[asyncio.StreamReader]:
    address = browser.address
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 20)
    head = f"GET /live?{urlencode({'at': path})} HTTP/1.1\r\nHost: {address.netloc}\r\n"
    writer.write(f"{head}Cookie: {browser.cookie}\r\n\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _read_on(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass
