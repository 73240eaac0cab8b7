"""One pool: what it offers, what each of its slots runs now, what went wrong lately, its machines, who acts for it."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.ledger.port import JobFilter, Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import NotFound
from runyard.model.history import Subject
from runyard.model.job import Job, JobState
from runyard.model.machine import MachineState
from runyard.model.operation import OperationKind
from runyard.web.attention import grouped
from runyard.web.flow import Scene, flow_values
from runyard.web.page import Address, Page
from runyard.web.slots import Slot, counted, slots_of
from runyard.web.views.queues import may_operate

ROWS = 50
SLOTS_SHOWN = 200
BROKEN_SINCE_S = 24 * 3600.0
BROKEN_MAX = 200
MACHINES_SHOWN = 200
_RUNS = (JobState.STARTING, JobState.RUNNING, JobState.CANCELING)


async def pool(call: Call, address: Address) -> Page:
    name = address.names["name"]
    ledger = call.context.services.ledger
    found = await ledger.get_pool(name)
    if found is None:
        raise NotFound(
            f"there is no pool {name[:80]!r}", field="name", cure="the overview lists those that there are"
        )
    tenants = call.tenants
    running = await ledger.list_jobs(JobFilter(pool=name, states=_RUNS, tenants=tenants), limit=SLOTS_SHOWN)
    since = await ledger.now() - BROKEN_SINCE_S
    broken = await ledger.list_broken_attempts(name, since=since, limit=BROKEN_MAX)
    machines = [
        machine for machine in await ledger.list_machines(name) if machine.state is not MachineState.GONE
    ]
    values = {
        "pool": found,
        "in_use": counted(
            running.jobs,
            found.starting + found.running,
            is_whole=running.next_cursor is None and tenants is None,
        ),
        "slots": await _slots(ledger, running.jobs),
        "recent": (await ledger.list_jobs(JobFilter(pool=name, tenants=tenants), limit=ROWS)).jobs,
        "broken": grouped([one for one in broken if tenants is None or one.job.tenant in tenants]),
        "machines": machines[:MACHINES_SHOWN],
        "machines_beyond": max(0, len(machines) - MACHINES_SHOWN),
        "check": await ledger.get_last_answered(name, OperationKind.CHECK_POOL),
        "may_change": may_operate(call),
        **flow_values(address, Scene(Subject.POOL, name)),
    }
    topics = ("events", f"pool:{name}", f"machines:{name}")
    return Page(title=name, template="pool.html", values=values, topics=topics)


async def _slots(ledger: Ledger, jobs: tuple[Job, ...]) -> tuple[Slot, ...]:
    attempts = await ledger.get_attempts([AttemptKey(job.uid, job.attempts) for job in jobs])
    return slots_of(jobs, attempts)
