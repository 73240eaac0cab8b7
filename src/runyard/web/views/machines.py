"""One machine: its state, its agent, what it runs now."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.model.errors import NotFound
from runyard.web.page import Address, Page
from runyard.web.views.queues import may_operate

BINDINGS_SHOWN = 100


async def machine(call: Call, address: Address) -> Page:
    name = address.names["name"]
    ledger = call.context.services.ledger
    found = await ledger.get_machine(name)
    if found is None:
        raise NotFound(
            f"there is no machine {name[:80]!r}", field="name", cure="the page of a pool lists its machines"
        )
    bindings = [one for one in await ledger.list_bindings(found.pool, machine=name) if not one.is_settled]
    held = []
    for binding in bindings[:BINDINGS_SHOWN]:
        job = await ledger.get_job(binding.key.uid)
        if job is not None and call.may_see(job.tenant):
            held.append((binding, job))
    values = {"machine": found, "held": held, "may_change": may_operate(call)}
    topics = ("events", f"machines:{found.pool}", f"machine:{name}")
    return Page(title=name, template="machine.html", values=values, topics=topics)
