"""Queues and tenants: who shares what, by which weights, within which limits."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.ledger.port import JobFilter
from runyard.model.errors import NotFound
from runyard.model.job import JobState
from runyard.model.token import Scope
from runyard.web.page import Address, Page

ROWS = 20
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
    running = JobFilter(queue=name, states=_RUNS, tenants=call.tenants)
    queued = JobFilter(queue=name, states=(JobState.QUEUED,), tenants=call.tenants)
    values = {
        "queue": found,
        "running": (await ledger.list_jobs(running, limit=ROWS)).jobs,
        "queued": (await ledger.list_jobs(queued, limit=ROWS)).jobs,
        "may_change": may_operate(call),
    }
    return Page(title=name, template="queue.html", values=values)


def may_operate(call: Call) -> bool:
    """Whether it may change what all tenants share."""
    return call.token.tenants is None and call.token.may(Scope.OPERATE)
