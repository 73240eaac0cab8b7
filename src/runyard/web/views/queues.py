"""Queues and tenants: who shares what, by which weights, within which limits."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.ledger.port import JobFilter
from runyard.model.errors import NotFound
from runyard.model.job import JobState
from runyard.model.token import Scope
from runyard.web.page import Address, Page
from runyard.web.shares import standings
from runyard.web.slots import counted

ROWS = 20
LONGEST_SHOWN = 10
SHARES_SHOWN = 100
_RUNS = (JobState.STARTING, JobState.RUNNING, JobState.CANCELING)


async def queues(call: Call, _: Address) -> Page:
    ledger = call.context.services.ledger
    tenants = await ledger.list_tenants()
    visible = [one for one in tenants if call.token.may_see(one.settings.name)]
    values = {
        "queues": await ledger.list_queues(),
        "tenants": visible,
        "may_change": may_operate(call),
    }
    return Page(title="Queues", template="queues.html", values=values)


async def queue(call: Call, address: Address) -> Page:
    name = address.names["name"]
    ledger = call.context.services.ledger
    found = await ledger.get_queue(name)
    if found is None:
        raise NotFound(
            f"there is no queue {name[:63]!r}", field="name", cure="/queues lists those that there are"
        )
    tenants = call.tenants
    running = await ledger.list_jobs(JobFilter(queue=name, states=_RUNS, tenants=tenants), limit=ROWS)
    queued = await ledger.list_jobs(
        JobFilter(queue=name, states=(JobState.QUEUED,), tenants=tenants), limit=ROWS
    )
    sees_all = tenants is None
    values = {
        "queue": found,
        "sees_all": sees_all,
        "running": running.jobs,
        "running_count": counted(
            running.jobs, found.starting + found.running, is_whole=running.next_cursor is None
        ),
        "queued": queued.jobs,
        "queued_count": counted(queued.jobs, found.queued, is_whole=queued.next_cursor is None),
        "longest": await ledger.list_longest_waiting(queue=name, limit=LONGEST_SHOWN)
        if sees_all and queued.next_cursor is not None
        else (),
        "shares": standings(await ledger.list_shares(name, limit=SHARES_SHOWN)) if sees_all else (),
        "may_change": may_operate(call),
    }
    return Page(title=name, template="queue.html", values=values)


def may_operate(call: Call) -> bool:
    """Whether it may change what all tenants share."""
    return call.token.tenants is None and call.token.may(Scope.OPERATE)
