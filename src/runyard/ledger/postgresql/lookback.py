"""What people look back at: a job's events, the latest of a class, what a pool lost, who waits and who is served."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.ledger import rows, statements
from runyard.ledger.port import Claimed, EndedCounts
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.attempt import Attempt, AttemptKey
from runyard.model.event import JobEvent
from runyard.model.job import Job
from runyard.model.waiting import TenantShare

_ATTEMPTS = """
    SELECT a.* FROM unnest(:uids::text[], :numbers::integer[]) AS k (uid, number)
    JOIN attempts a ON a.uid = k.uid AND a.number = k.number
"""
_BROKEN = """
    SELECT * FROM attempts WHERE pool = :pool AND ended_at >= :since
        AND (outcome::jsonb ->> 'kind') IN ('lost', 'refused')
    ORDER BY ended_at DESC, uid LIMIT :limit
"""
_LONGEST = """
    SELECT r.* FROM (SELECT serial, submitted_at, uid FROM jobs WHERE queue = :queue AND state = 'queued'
                     ORDER BY submitted_at, uid LIMIT :limit) j
    JOIN job_row r ON r.serial = j.serial ORDER BY j.submitted_at, j.uid
"""


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


async def list_longest_waiting(snapshot: Snapshot, queue: str, *, limit: int) -> list[Job]:
    return [rows.job_of(row) for row in await snapshot.rows(_LONGEST, queue=queue, limit=limit)]


async def list_shares(snapshot: Snapshot, queue: str, *, limit: int) -> list[TenantShare]:
    found = await snapshot.rows(statements.LIST_QUEUE_SHARES, queue=queue, limit=limit)
    return [rows.share_of(row) for row in found]


async def count_ended(snapshot: Snapshot, *, since: float) -> EndedCounts:
    found = await snapshot.rows(statements.COUNT_ENDED, since=since, limit=statements.ENDED_MAX)
    return rows.ended_counts_of(found, since)
