"""One job: where it stands and why, where its time went, what it left behind; its log lies beside, live."""

from __future__ import annotations

import json
from collections.abc import Mapping

from runyard.api.access import Call
from runyard.api.job_lookup import find_job
from runyard.api.job_specs import document_of
from runyard.artifacts.port import Artifact
from runyard.ledger.port import Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.job import Job
from runyard.model.token import Scope
from runyard.model.waiting import WaitReason
from runyard.policy.explain import explain, place_in_order
from runyard.web.copying import as_call, as_command
from runyard.web.medians import SAMPLES, medians_of
from runyard.web.next_step import NEXT_STEP
from runyard.web.page import Address, Page
from runyard.web.waterfall import WIDTH, bars_of

ARTIFACTS_SHOWN = 200
ATTEMPTS_SHOWN = 6
EVENTS_SHOWN = 100
RETRIES_LOOKED_FOR = 50
_ID_CHARS_KEPT = 34


async def job(call: Call, address: Address) -> Page:
    found = await find_job(call, address.names["id"])
    ledger = call.context.services.ledger
    attempts = await ledger.list_attempts(found.uid)
    now = await ledger.now()
    ahead, reasons = await _why(call, found)
    artifacts = await _artifacts(call, found)
    shown = attempts[-ATTEMPTS_SHOWN:]
    document = document_of(found.spec, job_id=found.id)
    may_change = call.token.may(Scope.SUBMIT, found.tenant)
    values = {
        "job": found,
        "attempts": list(reversed(shown)),
        "attempts_beyond": len(attempts) - len(shown),
        "waterfalls": {one.key.number: bars_of(found, attempts, one, now=now) for one in shown},
        "waterfall_width": WIDTH,
        "medians": await _medians(ledger, found),
        "ahead": ahead,
        "reasons": reasons,
        "next_step": NEXT_STEP,
        "artifacts": artifacts[:ARTIFACTS_SHOWN],
        "artifacts_beyond": max(0, len(artifacts) - ARTIFACTS_SHOWN),
        "events": await ledger.list_job_events(found.uid, limit=EVENTS_SHOWN),
        "document": json.dumps(document, indent=2, ensure_ascii=False),
        "may_change": may_change,
        "retry_id": await _retry_id(ledger, found) if may_change and found.state.is_final else None,
        "copies": (("Command", as_command(document)), ("API call", as_call(document))),
        "where": f"?tenant={found.tenant}",
    }
    return Page(title=found.id, template="job.html", values=values, topics=(f"job:{found.uid}",))


async def _why(call: Call, found: Job) -> tuple[int | None, tuple[WaitReason, ...]]:
    facts = await call.context.services.ledger.wait_facts(found.uid)
    return (None, ()) if facts is None else (place_in_order(facts), explain(facts))


async def _medians(ledger: Ledger, found: Job) -> Mapping[str, float]:
    """Of what else ran of its class lately."""
    if not found.attempts:
        return {}
    class_key = found.spec.requirements.class_key()
    latest = await ledger.list_class_attempts(class_key, limit=SAMPLES)
    return medians_of([attempt for attempt in latest if attempt.key.uid != found.uid])


async def _artifacts(call: Call, found: Job) -> list[Artifact]:
    if not found.attempts:
        return []
    return await call.context.services.artifacts.list(AttemptKey(found.uid, found.attempts))


async def _retry_id(ledger: Ledger, found: Job) -> str | None:
    """The id of the next retry: the same until somebody takes it, so that a second click finds the first one's job."""
    stem = found.id[:_ID_CHARS_KEPT].rstrip("-_.")
    for number in range(1, RETRIES_LOOKED_FOR + 1):
        name = f"{stem}-r{number}"
        if await ledger.find_job(found.tenant, name) is None:
            return name
    return None
