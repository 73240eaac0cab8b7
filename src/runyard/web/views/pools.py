"""One pool: what it offers, what each of its slots runs now, what it ran before, who acts for it."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.ledger.port import JobFilter
from runyard.model.errors import NotFound
from runyard.model.job import JobState
from runyard.web.page import Address, Page
from runyard.web.views.queues import may_operate

ROWS = 50
_RUNS = (JobState.STARTING, JobState.RUNNING, JobState.CANCELING)


async def pool(call: Call, address: Address) -> Page:
    name = address.names["name"]
    ledger = call.context.services.ledger
    found = await ledger.get_pool(name)
    if found is None:
        raise NotFound(
            f"there is no pool {name[:80]!r}", field="name", cure="the overview lists those that there are"
        )
    running = JobFilter(pool=name, states=_RUNS, tenants=call.tenants)
    values = {
        "pool": found,
        "running": (await ledger.list_jobs(running, limit=ROWS)).jobs,
        "recent": (await ledger.list_jobs(JobFilter(pool=name, tenants=call.tenants), limit=ROWS)).jobs,
        "may_change": may_operate(call),
    }
    return Page(title=name, template="pool.html", values=values, topics=("events", f"pool:{name}"))
