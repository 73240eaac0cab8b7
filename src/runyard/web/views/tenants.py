"""One tenant: its weight and limits, what it has in each queue beside its fair share, and its jobs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from runyard.api.access import Call
from runyard.ledger.port import JobFilter
from runyard.model.errors import NotFound
from runyard.model.job import JobState
from runyard.model.waiting import TenantDepth
from runyard.web.lately import Lately, received_lately
from runyard.web.page import Address, Page
from runyard.web.shares import Standing, standings
from runyard.web.slots import counted
from runyard.web.views.queues import SHARES_READ, may_operate

ROWS = 20
QUEUES_SHOWN = 20
_RUNS = (JobState.STARTING, JobState.RUNNING, JobState.CANCELING)


@dataclass(frozen=True, slots=True, kw_only=True)
class InQueue:
    """`standing` is None where so many share the queue that this one is not among those that were read."""

    queue: str
    queued: int
    running: int
    standing: Standing | None


async def tenant(call: Call, address: Address) -> Page:
    name = address.names["name"]
    ledger = call.context.services.ledger
    found = await ledger.get_tenant(name) if call.token.may_see(name) else None
    if found is None:
        raise NotFound(f"there is no tenant {name[:63]!r}", field="name", cure="its first job makes it")
    running = await ledger.list_jobs(JobFilter(tenants=(name,), states=_RUNS), limit=ROWS)
    longest = await ledger.list_longest_waiting(tenants=(name,), limit=ROWS + 1)
    lately = await received_lately(call)
    in_queues = await _in_queues(call, name, lately)
    values = {
        "tenant": found,
        "running": running.jobs,
        "running_count": counted(running.jobs, found.running, is_whole=running.next_cursor is None),
        "waiting": longest[:ROWS],
        "waiting_count": counted(longest[:ROWS], found.queued, is_whole=len(longest) <= ROWS),
        "in_queues": in_queues[:QUEUES_SHOWN],
        "are_queues_cut": len(in_queues) > QUEUES_SHOWN,
        "received_in": lately.words,
        "recent": (await ledger.list_jobs(JobFilter(tenants=(name,)), limit=ROWS)).jobs,
        "may_change": may_operate(call),
    }
    return Page(title=name, template="tenant.html", values=values)


async def _in_queues(call: Call, name: str, lately: Lately) -> tuple[InQueue, ...]:
    """Those with unfinished jobs of it first, then those in which it only received."""
    depths = await call.context.services.ledger.list_tenant_depths(name, limit=QUEUES_SHOWN + 1)
    known = {depth.queue for depth in depths}
    depths += [
        TenantDepth(queue=queue, queued=0, running=0)
        for queue in lately.queues_of(name)
        if queue not in known
    ]
    return tuple(
        await asyncio.gather(*(_in_queue(call, name, one, lately) for one in depths[: QUEUES_SHOWN + 1]))
    )


async def _in_queue(call: Call, name: str, depth: TenantDepth, lately: Lately) -> InQueue:
    shares = await call.context.services.ledger.list_shares(depth.queue, limit=SHARES_READ)
    of_all = standings(shares, lately.by_tenant(depth.queue))
    own = next((one for one in of_all if one.tenant == name), None)
    return InQueue(queue=depth.queue, queued=depth.queued, running=depth.running, standing=own)
