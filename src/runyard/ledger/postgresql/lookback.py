"""What people look back at: a job's events, the latest of a class, what a pool lost, who waits and who is served."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.ledger import rows, statements
from runyard.ledger.port import Claimed, EndedCounts, Received
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.attempt import Attempt, AttemptKey
from runyard.model.event import JobEvent
from runyard.model.job import Job
from runyard.model.waiting import TenantDepth, TenantShare

_ATTEMPTS = """
    SELECT a.* FROM unnest(:uids::text[], :numbers::integer[]) AS k (uid, number)
    JOIN attempts a ON a.uid = k.uid AND a.number = k.number
"""
_BROKEN = """
    SELECT * FROM attempts WHERE pool = :pool AND ended_at >= :since
        AND (outcome::jsonb ->> 'kind') IN ('lost', 'refused')
    ORDER BY ended_at DESC, uid LIMIT :limit
"""
_LONGEST_OF_TENANT = statements.LONGEST_OF_TENANT.replace(":queue IS NULL", ":queue::text IS NULL")
_RECEIVED = statements.received(
    wall_s="CASE WHEN (a.outcome::json ->> 'was_seen')::boolean"
    " THEN (a.outcome::json #>> '{usage,wall_s}')::double precision ELSE 0 END"
)


async def get_attempts(snapshot: Snapshot, keys: Sequence[AttemptKey]) -> list[Attempt]:
    uids, numbers = [key.uid for key in keys], [key.number for key in keys]
    return [rows.attempt_of(row) for row in await snapshot.rows(_ATTEMPTS, uids=uids, numbers=numbers)]


async def list_job_events(snapshot: Snapshot, uid: str, *, limit: int) -> list[JobEvent]:
    found = await snapshot.rows(statements.LIST_JOB_EVENTS, uid=uid, limit=limit)
    return [rows.event_of(row) for row in reversed(found)]


async def list_class_attempts(snapshot: Snapshot, class_key: str, *, limit: int) -> list[Attempt]:
    found = await snapshot.rows(statements.LIST_CLASS_ATTEMPTS, class_key=class_key, limit=limit)
    return [rows.attempt_of(row) for row in found]


async def list_broken_attempts(snapshot: Snapshot, pool: str, *, since: float, limit: int) -> list[Claimed]:
    """On one snapshot: a job is deleted with its attempts."""
    found = await snapshot.rows(_BROKEN, pool=pool, since=since, limit=limit)
    uids = list({row["uid"] for row in found})
    known = await snapshot.rows("SELECT * FROM job_row WHERE uid = ANY (:uids)", uids=uids)
    by_uid = {row["uid"]: rows.job_of(row) for row in known}
    return [Claimed(by_uid[row["uid"]], rows.attempt_of(row)) for row in found]


async def list_longest_waiting(
    snapshot: Snapshot, *, queue: str | None, tenants: tuple[str, ...] | None, limit: int
) -> list[Job]:
    found: Sequence[rows.Row]
    if tenants is None:
        found = await snapshot.rows(statements.LONGEST_OF_QUEUE, queue=queue, limit=limit)
    else:
        of_each = [
            await snapshot.rows(_LONGEST_OF_TENANT, tenant=tenant, queue=queue, limit=limit)
            for tenant in dict.fromkeys(tenants)
        ]
        found = rows.longest_waiting(of_each, limit)
    serials = [row["serial"] for row in found]
    known = await snapshot.rows("SELECT * FROM job_row WHERE serial = ANY (:serials)", serials=serials)
    by_serial = {row["serial"]: rows.job_of(row) for row in known}
    return [by_serial[serial] for serial in serials if serial in by_serial]


async def list_shares(snapshot: Snapshot, queue: str, *, limit: int) -> list[TenantShare]:
    found = await snapshot.rows(statements.LIST_QUEUE_SHARES, queue=queue, limit=limit)
    return [rows.share_of(row) for row in found]


async def list_tenant_depths(snapshot: Snapshot, tenant: str, *, limit: int) -> list[TenantDepth]:
    found = await snapshot.rows(statements.LIST_TENANT_DEPTHS, tenant=tenant, limit=limit)
    return [rows.depth_of(row) for row in found]


async def read_received(snapshot: Snapshot, *, since: float, now: float) -> Received:
    since = rows.received_since(await snapshot.one(statements.RECEIVED_SINCE, since=since), since)
    return rows.received_of(await snapshot.rows(_RECEIVED, since=since, now=now), since)


async def count_ended(snapshot: Snapshot, *, since: float) -> EndedCounts:
    found = await snapshot.rows(statements.COUNT_ENDED, since=since, limit=statements.ENDED_MAX)
    return rows.ended_counts_of(found, since)
