"""The alarm on the overview: queues in which nothing starts, and why their oldest job waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runyard.api.access import Call
from runyard.model.queue import Queue
from runyard.policy.explain import explain
from runyard.policy.progress import Stalled, stalled_queues

SHOWN_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """`job` and `why` are None and empty where that job is none of the viewer's."""

    queue: str
    since: float
    job: str | None
    why: tuple[str, ...]


async def list_stalls(call: Call, queues: Sequence[Queue]) -> tuple[Stall, ...]:
    """Longest first, at most SHOWN_MAX."""
    found = stalled_queues(queues, await call.context.services.ledger.now())
    longest = sorted(found, key=lambda one: (one.since, one.queue))[:SHOWN_MAX]
    return tuple([await _explained(call, one) for one in longest])


async def _explained(call: Call, stalled: Stalled) -> Stall:
    ledger = call.context.services.ledger
    uid = await ledger.oldest_ready(stalled.queue)
    facts = await ledger.wait_facts(uid) if uid is not None else None
    if facts is None or not call.token.may_see(facts.job.tenant):
        return Stall(queue=stalled.queue, since=stalled.since, job=None, why=())
    why = tuple(dict.fromkeys(reason.message for reason in explain(facts)))
    return Stall(queue=stalled.queue, since=stalled.since, job=facts.job.id, why=why)
