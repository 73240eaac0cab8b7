"""The first page: what waits, what runs, where, and what needs an operator now."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.ledger.port import JobFilter
from runyard.web.flow import flow_values
from runyard.web.page import Address, Page
from runyard.web.stalls import list_stalls

RECENT_JOBS = 10


async def overview(call: Call, address: Address) -> Page:
    ledger = call.context.services.ledger
    queues = await ledger.list_queues()
    pools = await ledger.list_pools()
    recent = await ledger.list_jobs(JobFilter(tenants=call.tenants), limit=RECENT_JOBS)
    values = {
        "queues": queues,
        "pools": pools,
        "recent": recent.jobs,
        "is_first_run": not recent.jobs,
        "stalled": await list_stalls(call, queues),
        **flow_values(address),
    }
    topics = ("events", *(f"pool:{pool.settings.name}" for pool in pools))
    return Page(title="Overview", template="overview.html", values=values, topics=topics)
