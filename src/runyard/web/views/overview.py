"""The first page: what needs an operator now, what waits, what runs, where; and the first steps on an empty ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from runyard.api.access import Call
from runyard.ledger.port import Claimed, JobFilter
from runyard.model.pool import Pool
from runyard.web.attention import BROKEN_SINCE_S, notices
from runyard.web.flow import flow_values
from runyard.web.lately import received_lately
from runyard.web.page import Address, Page
from runyard.web.shares import queue_standings
from runyard.web.stalls import list_stalls
from runyard.web.views.queues import may_operate

RECENT_JOBS = 10
RATE_OVER_S = 60.0
BROKEN_MAX = 100  # of each pool
POOLS_LOOKED_INTO = 50


async def overview(call: Call, address: Address) -> Page:
    ledger = call.context.services.ledger
    now = await ledger.now()
    queues = await ledger.list_queues()
    pools = await ledger.list_pools()
    recent = await ledger.list_jobs(JobFilter(tenants=call.tenants), limit=RECENT_JOBS)
    broken = await broken_lately(call, pools, now=now)
    lately = await received_lately(call)
    values = {
        "notices": notices(pools, queues, broken),
        "queues": queues,
        "rates": await _rates(call, now),
        "standings": queue_standings(queues, lately.by_queue()),
        "received_in": lately.words,
        "pools": pools,
        "recent": recent.jobs,
        "is_first_run": not recent.jobs,
        "may_change": may_operate(call),
        "stalled": await list_stalls(call, queues),
        **flow_values(address),
    }
    topics = ("events", *(f"pool:{pool.settings.name}" for pool in pools))
    return Page(title="Overview", template="overview.html", values=values, topics=topics)


async def broken_lately(call: Call, pools: list[Pool], *, now: float) -> list[Claimed]:
    """What the pools lost or refused within the last hour, of the tenants that the caller may see."""
    ledger = call.context.services.ledger
    reads = (
        ledger.list_broken_attempts(pool.settings.name, since=now - BROKEN_SINCE_S, limit=BROKEN_MAX)
        for pool in pools[:POOLS_LOOKED_INTO]
    )
    found = [claimed for its in await asyncio.gather(*reads) for claimed in its]
    tenants = call.tenants
    return [claimed for claimed in found if tenants is None or claimed.job.tenant in tenants]


async def _rates(call: Call, now: float) -> Mapping[str, float]:
    """Jobs that ended per minute, by queue."""
    counts = await call.context.services.ledger.count_ended(since=now - RATE_OVER_S)
    minutes = max(now - counts.since, 1.0) / 60.0
    return {queue: count / minutes for queue, count in counts.by_queue.items()}
