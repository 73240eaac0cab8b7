"""One job: where it stands and why, where its time went, what it left behind; its log lies beside, live."""

from __future__ import annotations

import json
import shlex

from runyard.api.access import Call
from runyard.api.job_lookup import find_job
from runyard.api.job_specs import document_of
from runyard.artifacts.port import Artifact
from runyard.model.attempt import AttemptKey
from runyard.model.job import Job
from runyard.model.token import Scope
from runyard.model.waiting import WaitReason
from runyard.policy.explain import explain, place_in_order
from runyard.web.page import Address, Page
from runyard.web.waterfall import WIDTH, bars_of

ARTIFACTS_SHOWN = 200


async def job(call: Call, address: Address) -> Page:
    found = await find_job(call, address.names["id"])
    ledger = call.context.services.ledger
    attempts = await ledger.list_attempts(found.uid)
    now = await ledger.now()
    ahead, reasons = await _why(call, found)
    newest = attempts[-1] if attempts else None
    artifacts = await _artifacts(call, found)
    values = {
        "job": found,
        "attempts": list(reversed(attempts)),
        "waterfalls": {one.key.number: bars_of(found, attempts, one, now=now) for one in attempts[-5:]},
        "waterfall_width": WIDTH,
        "ahead": ahead,
        "reasons": reasons,
        "now": now,
        "newest": newest,
        "artifacts": artifacts[:ARTIFACTS_SHOWN],
        "artifacts_beyond": max(0, len(artifacts) - ARTIFACTS_SHOWN),
        "document": json.dumps(document_of(found.spec, job_id=found.id), indent=2, ensure_ascii=False),
        "may_change": call.token.may(Scope.SUBMIT, found.tenant),
        "command": _command(found),
        "where": f"?tenant={found.tenant}",
    }
    return Page(title=found.id, template="job.html", values=values, topics=(f"job:{found.uid}",))


async def _why(call: Call, found: Job) -> tuple[int | None, tuple[WaitReason, ...]]:
    facts = await call.context.services.ledger.wait_facts(found.uid)
    return (None, ()) if facts is None else (place_in_order(facts), explain(facts))


async def _artifacts(call: Call, found: Job) -> list[Artifact]:
    if not found.attempts:
        return []
    return await call.context.services.artifacts.list(AttemptKey(found.uid, found.attempts))


def _command(found: Job) -> str:
    """The command line that submits the same again."""
    return f"runyard retry {shlex.quote(found.id)}" if found.state.is_final else f"runyard logs -f {found.id}"
