"""Finds the job that an id in a path means, among the tenants that the token is for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from runyard.api.access import Call
from runyard.api.errors import Gone
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Ambiguous, NotFound
from runyard.model.job import Job
from runyard.wire.job_document import JOB_ID_PATTERN

_JOB_ID = re.compile(JOB_ID_PATTERN)
LOOKUPS_AT_ONCE = 50


async def find_job(call: Call, job_id: str) -> Job:
    """Raises NotFound, also for a job of another tenant; Ambiguous naming the tenants that have it."""
    found: list[Job] = []
    if len(job_id) <= 40 and _JOB_ID.fullmatch(job_id):
        found = await _find_in(call, job_id, await _candidates(call))
        if not found and call.asked_tenant is None and call.token.tenants is None:
            found = await _find_in(call, job_id, await call.context.tenants.refresh(None))
    if not found:
        where = f" of tenant '{call.asked_tenant}'" if call.asked_tenant else ""
        raise NotFound(
            f"there is no job {job_id[:100]!r}{where}",
            field="id",
            cure="`runyard jobs` lists those that there are",
        )
    if len(found) > 1:
        names = ", ".join(sorted(job.tenant for job in found)[:20])
        raise Ambiguous(
            f"there is a job '{job_id}' in each of the tenants {names}",
            field="tenant",
            cure="say which with ?tenant=",
        )
    return found[0]


async def _candidates(call: Call) -> tuple[str, ...]:
    if call.asked_tenant is not None:
        return (call.asked_tenant,) if call.may_see(call.asked_tenant) else ()
    if call.token.tenants is not None:
        return call.token.tenants
    return await call.context.tenants.get(None)


async def _find_in(call: Call, job_id: str, tenants: Iterable[str]) -> list[Job]:
    ledger = call.context.services.ledger
    names = list(tenants)
    if len(names) == 1:
        job = await ledger.find_job(names[0], job_id)
        return [job] if job else []
    found: list[Job] = []
    for begin in range(0, len(names), LOOKUPS_AT_ONCE):
        some = names[begin : begin + LOOKUPS_AT_ONCE]
        jobs = await asyncio.gather(*(ledger.find_job(name, job_id) for name in some))
        found += [job for job in jobs if job is not None]
    return found


async def attempt_key(call: Call, job: Job, number: int | None) -> AttemptKey:
    """The attempt that was asked for, or the newest. Raises NotFound where there is none."""
    key = AttemptKey(job.uid, job.attempts if number is None else number)
    if not 1 <= key.number <= job.attempts or await call.context.services.ledger.get_attempt(key) is None:
        raise NotFound(
            f"job '{job.id}' has {job.attempts} attempts, not one numbered {key.number}"
            if job.attempts
            else f"job '{job.id}' has no attempt yet",
            field="attempt",
            cure="leave the attempt out, or ask for one that GET /jobs/{id} lists",
        )
    return key


async def refuse_deleted_log(call: Call, key: AttemptKey) -> None:
    if await call.context.services.ledger.is_logs_deleted(key):
        raise Gone(
            f"the log of attempt {key.number} was deleted when its time of keeping was over",
            cure="the operator sets the time with [retention] logs",
        )
