"""What people look back at: a job's events, the latest of a class, what a pool lost, who waits and who is served."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.ledger import rows, statements
from runyard.ledger.port import Claimed, EndedCounts, Received
from runyard.ledger.sqlite import jobs
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.attempt import Attempt, AttemptKey
from runyard.model.event import JobEvent
from runyard.model.job import Job
from runyard.model.waiting import TenantDepth, TenantShare

_BROKEN = """
    SELECT * FROM attempts WHERE pool = :pool AND ended_at >= :since
        AND json_extract(outcome, '$.kind') IN ('lost', 'refused')
    ORDER BY ended_at DESC, uid LIMIT :limit
"""
_RECEIVED = statements.received(
    wall_s="CASE WHEN json_extract(a.outcome, '$.was_seen') THEN json_extract(a.outcome, '$.usage.wall_s') ELSE 0 END"
)


def get_attempts(tx: Transaction, keys: Sequence[AttemptKey]) -> list[Attempt]:
    found = (jobs.get_attempt(tx, key) for key in keys)
    return [attempt for attempt in found if attempt is not None]


def list_job_events(tx: Transaction, uid: str, *, limit: int) -> list[JobEvent]:
    found = tx.rows(statements.LIST_JOB_EVENTS, uid=uid, limit=limit)
    return [rows.event_of(row) for row in reversed(found)]


def list_class_attempts(tx: Transaction, class_key: str, *, limit: int) -> list[Attempt]:
    found = tx.rows(statements.LIST_CLASS_ATTEMPTS, class_key=class_key, limit=limit)
    return [rows.attempt_of(row) for row in found]


def list_broken_attempts(tx: Transaction, pool: str, *, since: float, limit: int) -> list[Claimed]:
    found = []
    for row in tx.rows(_BROKEN, pool=pool, since=since, limit=limit):
        job = jobs.get_job(tx, row["uid"])
        assert job is not None  # deleted with its attempts
        found.append(Claimed(job, rows.attempt_of(row)))
    return found


def list_longest_waiting(
    tx: Transaction, *, queue: str | None, tenants: tuple[str, ...] | None, limit: int
) -> list[Job]:
    found: Sequence[rows.Row]
    if tenants is None:
        found = tx.rows(statements.LONGEST_OF_QUEUE, queue=queue, limit=limit)
    else:
        of_each = (
            tx.rows(statements.LONGEST_OF_TENANT, tenant=tenant, queue=queue, limit=limit)
            for tenant in dict.fromkeys(tenants)
        )
        found = rows.longest_waiting(of_each, limit)
    return [jobs.get_job_by_serial(tx, row["serial"]) for row in found]


def list_shares(tx: Transaction, queue: str, *, limit: int) -> list[TenantShare]:
    found = tx.rows(statements.LIST_QUEUE_SHARES, queue=queue, limit=limit)
    return [rows.share_of(row) for row in found]


def list_tenant_depths(tx: Transaction, tenant: str, *, limit: int) -> list[TenantDepth]:
    return [rows.depth_of(row) for row in tx.rows(statements.LIST_TENANT_DEPTHS, tenant=tenant, limit=limit)]


def read_received(tx: Transaction, *, since: float, now: float) -> Received:
    since = rows.received_since(tx.one(statements.RECEIVED_SINCE, since=since), since)
    return rows.received_of(tx.rows(_RECEIVED, since=since, now=now), since)


def count_ended(tx: Transaction, *, since: float) -> EndedCounts:
    found = tx.rows(statements.COUNT_ENDED, since=since, limit=statements.ENDED_MAX)
    return rows.ended_counts_of(found, since)
