"""Queues and tenants: who shares what, by which weights, within which limits."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.ledger.port import JobFilter
from runyard.model.errors import NotFound
from runyard.model.history import Subject
from runyard.model.job import JobState
from runyard.model.token import Scope
from runyard.web.flow import Scene, flow_values
from runyard.web.lately import received_lately
from runyard.web.page import Address, Page
from runyard.web.shares import standings
from runyard.web.slots import counted

ROWS = 20
SHARES_READ = 1000
"""A fair share is of all that ask, so more are read than shown."""

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
    longest = await ledger.list_longest_waiting(queue=name, tenants=tenants, limit=ROWS + 1)
    sees_all = tenants is None
    lately = await received_lately(call)
    shares = await ledger.list_shares(name, limit=SHARES_READ) if sees_all else ()
    of_tenants = standings(shares, lately.by_tenant(name)) if sees_all else ()
    values = {
        "queue": found,
        "sees_all": sees_all,
        "running": running.jobs,
        "running_count": counted(
            running.jobs, found.starting + found.running, is_whole=running.next_cursor is None
        ),
        "waiting": longest[:ROWS],
        "waiting_count": counted(longest[:ROWS], found.queued, is_whole=len(longest) <= ROWS),
        "shares": of_tenants[:SHARES_SHOWN],
        "shares_beyond": len(of_tenants) - SHARES_SHOWN,
        "received_in": lately.words,
        "may_change": may_operate(call),
        **flow_values(address, Scene(Subject.QUEUE, name)),
    }
    return Page(title=name, template="queue.html", values=values)


def may_operate(call: Call) -> bool:
    """Whether it may change what all tenants share."""
    return call.token.tenants is None and call.token.may(Scope.OPERATE)
