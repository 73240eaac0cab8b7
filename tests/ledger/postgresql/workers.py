"""Owners that claim and settle as fast as they can, and the audit of what they left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from runyard.ledger.port import Claimed, ClaimRequest, Ledger
from runyard.model.errors import LedgerUnavailable
from runyard.model.job import JobState
from runyard.model.outcome import Usage, succeeded
from runyard.model.pool import Fence
from tests.contracts.ledger.world import BIG, PLENTY, SMALL, finish, pool_settings

T = TypeVar("T")

ROOMS = {SMALL.class_key(): 1000, BIG.class_key(): 1000}


async def own(ledger: Ledger, pool: str, *, owner: str = "me", **shape: object) -> Fence:
    await ledger.put_pool(pool_settings(pool, **shape))
    fence = await ledger.acquire_pool(pool, owner=owner, lease_s=60)
    assert fence is not None
    return fence


def request(fence: Fence, *slots: int) -> ClaimRequest:
    return ClaimRequest(fence=fence, free_slots=slots or (0,), rooms=ROOMS, budget=PLENTY)


async def end(ledger: Ledger, fence: Fence, claimed: Claimed) -> None:
    await ledger.settle(fence, claimed.attempt.key, succeeded(Usage(wall_s=1.0)), decide=finish)


async def persist(call: Callable[[], Awaitable[T]]) -> T:
    """As a client does whose database is away for a moment: the same again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except LedgerUnavailable:
                await asyncio.sleep(0.02)


async def work(ledger: Ledger, fence: Fence, *, width: int, is_done: Callable[[], bool]) -> int:
    """Claims up to `width` at once and settles each, until it is done; returns how many it settled."""
    settled = 0
    while not is_done():
        for claimed in await persist(lambda: ledger.list_unfinished(fence)):
            await persist(lambda claimed=claimed: end(ledger, fence, claimed))  # an unanswered claim's
            settled += 1
        try:
            got = await ledger.claim(request(fence, *range(width)))
        except LedgerUnavailable:
            continue
        await asyncio.gather(*(persist(lambda one=one: end(ledger, fence, one)) for one in got))
        settled += len(got)
        if not got:
            await asyncio.sleep(0.002)
    return settled


async def running_at_most(ledger: Ledger, jobs: dict[str, tuple[str, str]]) -> dict[str, int]:
    """The most that ran at once by queue, by tenant and by both, replayed from the feed: it is in order of commit, so
    this sees every moment that there was. `jobs` maps a uid to its queue and tenant."""
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    after = 0
    while events := await ledger.list_events(after=after, limit=5000):
        for event in events:
            assert event.sequence == after + 1, "the feed has no holes"
            after = event.sequence
            change = {"starting": 1, "queued": 0, "running": 0, "canceling": 0}.get(event.state, -1)
            queue, tenant = jobs[event.uid]
            for name in (f"queue {queue}", f"tenant {tenant}", f"{queue}/{tenant}"):
                now[name] += change
                most[name] = max(most[name], now[name])
    return dict(most)


# Each gives no row while every count equals what it counts.
_AUDITS = (
    "SELECT q.name FROM queues q WHERE (q.queued, q.starting + q.running) <> (SELECT"
    " count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state IN ('starting', 'running', 'canceling'))"
    " FROM jobs j WHERE j.queue = q.name)",
    "SELECT t.name FROM tenants t WHERE (t.queued, t.running) <> (SELECT"
    " count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state IN ('starting', 'running', 'canceling'))"
    " FROM jobs j WHERE j.tenant = t.name)",
    "SELECT s.queue, s.tenant FROM shares s WHERE (s.queued, s.ready, s.running) <> (SELECT"
    " count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE is_ready = 1),"
    " count(*) FILTER (WHERE state IN ('starting', 'running', 'canceling'))"
    " FROM jobs j WHERE j.queue = s.queue AND j.tenant = s.tenant)",
    "SELECT l.queue, l.class_key FROM lanes l WHERE l.ready <> (SELECT count(*) FROM jobs j"
    " WHERE j.queue = l.queue AND j.class_key = l.class_key AND j.is_ready = 1)",
    "SELECT coalesce(f.queue, j.queue), coalesce(f.tenant, j.tenant) FROM fair f FULL JOIN (SELECT queue, class_key,"
    " tenant, count(*) AS ready FROM jobs WHERE is_ready = 1 GROUP BY 1, 2, 3) j ON f.queue = j.queue"
    " AND f.class_key = j.class_key AND f.tenant = j.tenant WHERE f.ready IS DISTINCT FROM j.ready",
    "SELECT f.queue, f.tenant FROM fair f JOIN shares s ON s.queue = f.queue AND s.tenant = f.tenant"
    " WHERE f.vtime <> s.vtime",
    "SELECT f.queue, f.tenant FROM fair f JOIN shares s ON s.queue = f.queue AND s.tenant = f.tenant JOIN queues q"
    " ON q.name = f.queue JOIN tenants t ON t.name = f.tenant WHERE f.is_blocked = 1"
    " AND NOT (coalesce(t.running >= t.running_max, false) OR coalesce(s.running >= q.tenant_running_max, false))",
    "SELECT p.pool FROM pool_state p WHERE p.starting + p.running <>"
    " (SELECT count(*) FROM attempts a WHERE a.pool = p.pool AND a.state <> 'ended')",
    "SELECT a.uid FROM attempts a JOIN jobs j ON j.uid = a.uid WHERE a.state <> 'ended' AND a.number <> j.attempts",
    "SELECT max(sequence), count(*) FROM events HAVING max(sequence) <> count(*)",
)


async def audit(session: asyncpg.Connection) -> None:
    for query in _AUDITS:
        assert await session.fetch(query) == [], query


async def count_final(session: asyncpg.Connection) -> int:
    return int(await session.fetchval("SELECT count(*) FROM jobs WHERE state = $1", JobState.SUCCEEDED.value))
