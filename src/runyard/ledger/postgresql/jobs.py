"""Jobs as such: into the ledger, out of it, found in it, canceled by their users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runyard.ledger import refusals, rows
from runyard.ledger.port import Submitted
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.attempt import Attempt, AttemptKey
from runyard.model.errors import Invalid
from runyard.model.job import Job, JobState, NewJob
from runyard.model.outcome import Reason, ReasonCode
from runyard.model.requirements import Requirements, resource_seconds

DEFAULT_WALL_S = 10.0  # what an attempt of a class never seen is taken to need

_CANCELED = Reason(code=ReasonCode.CANCELED, message="canceled while it was queued")


# -- submit -------------------------------------------------------------------------------------------------------
async def submit(database: Database, jobs: Sequence[NewJob]) -> list[Submitted | Exception]:
    storable = [new for new in jobs if _is_storable(new)]
    answer = await database.call("submit", {"jobs": [_document(new) for new in storable]})
    answers = iter(answer["answers"])
    return [
        _submitted(new, next(answers), answer["at"]) if _is_storable(new) else _not_storable(new)
        for new in jobs
    ]


def _is_storable(new: NewJob) -> bool:
    """PostgreSQL's text holds no NUL. The spec is JSON text, where it is escaped."""
    spec = new.spec
    names = (new.uid, new.id, new.submitted_by, new.retry_of or "", spec.tenant, spec.queue, spec.name or "")
    return not any("\0" in text for text in (*names, *spec.labels, *spec.labels.values()))


def _not_storable(new: NewJob) -> Invalid:
    return Invalid(f"job {new.id!r}: a name or a label holds a NUL character", cure="send it without")


def _document(new: NewJob) -> dict[str, Any]:
    spec = new.spec
    return {
        "uid": new.uid,
        "tenant": spec.tenant,
        "id": new.id,
        "name": spec.name,
        "queue": spec.queue,
        "priority": spec.priority,
        "spec": rows.to_json(spec),
        "spec_hash": new.spec_hash,
        "submitted_by": new.submitted_by,
        "retry_of": new.retry_of,
        "queue_s": spec.limits.queue_s,
        "labels": spec.labels,
        **_class_document(spec.requirements),
    }


def _class_document(requirements: Requirements) -> dict[str, Any]:
    return {
        "class_key": requirements.class_key(),
        "requirements": rows.to_json(requirements),
        "cpu_millis": requirements.cpu_millis,
        "memory_bytes": requirements.memory_bytes,
        "disk_bytes": requirements.disk_bytes,
        "estimate": resource_seconds(requirements, DEFAULT_WALL_S),
    }


def _submitted(new: NewJob, answer: Mapping[str, Any], now: float) -> Submitted | Exception:
    if "is_new" in answer:
        return Submitted(job=_queued_job(new, now), is_new=True)
    if "job" in answer:
        known = rows.job_of(answer["job"])
        return (
            Submitted(job=known, is_new=False) if known.spec_hash == new.spec_hash else refusals.same_id(new)
        )
    match answer["refused"]:
        case "no_queue":
            return refusals.no_queue_for(new.spec.queue)
        case full:
            kind = full.removesuffix("_full")
            name = new.spec.queue if kind == "queue" else new.spec.tenant
            return refusals.is_full(kind, name, queued=answer["queued"], queued_max=answer["queued_max"])


def _queued_job(new: NewJob, now: float) -> Job:
    queue_s = new.spec.limits.queue_s
    return Job(
        uid=new.uid,
        id=new.id,
        spec=new.spec,
        spec_hash=new.spec_hash,
        state=JobState.QUEUED,
        submitted_at=now,
        queued_at=now,
        submitted_by=new.submitted_by,
        retry_of=new.retry_of,
        queue_deadline_at=None if queue_s is None else now + queue_s,
    )


# -- find ---------------------------------------------------------------------------------------------------------
async def find_job(snapshot: Snapshot, tenant: str, job_id: str) -> Job | None:
    row = await snapshot.row(
        "SELECT r.* FROM jobs j JOIN job_row r ON r.serial = j.serial WHERE j.tenant = :tenant AND j.id = :id",
        tenant=tenant,
        id=job_id,
    )
    return None if row is None else rows.job_of(row)


async def get_job(snapshot: Snapshot, uid: str) -> Job | None:
    row = await snapshot.row("SELECT * FROM job_row WHERE uid = :uid", uid=uid)
    return None if row is None else rows.job_of(row)


async def list_attempts(snapshot: Snapshot, uid: str) -> list[Attempt]:
    found = await snapshot.rows("SELECT * FROM attempts WHERE uid = :uid ORDER BY number", uid=uid)
    return [rows.attempt_of(row) for row in found]


async def get_attempt(snapshot: Snapshot, key: AttemptKey) -> Attempt | None:
    row = await snapshot.row(
        "SELECT * FROM attempts WHERE uid = :uid AND number = :number", uid=key.uid, number=key.number
    )
    return None if row is None else rows.attempt_of(row)


# -- end ----------------------------------------------------------------------------------------------------------
async def request_cancel(database: Database, uid: str) -> Job:
    answer = await database.call("request_cancel", {"uid": uid, "reason": rows.to_json(_CANCELED)})
    if "refused" in answer:
        raise refusals.no_job(uid)
    return rows.job_of(answer["job"])


async def delete_job(database: Database, uid: str) -> None:
    answer = await database.call("delete_job", {"uid": uid})
    if answer.get("refused") == "no_job":
        raise refusals.no_job(uid)
    if answer.get("refused") == "not_final":
        raise refusals.not_final(answer["id"], answer["state"])
