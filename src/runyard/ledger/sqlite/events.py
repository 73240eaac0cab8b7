"""The feed of state changes: one row per change of a job, written in the transaction that makes it."""

from __future__ import annotations

import heapq
from itertools import islice

from runyard.ledger import rows
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.event import JobEvent
from runyard.model.job import JobState
from runyard.model.outcome import Reason


def add_event(
    tx: Transaction, job: rows.Row, state: JobState, *, attempt: int = 0, reason: Reason | None = None
) -> None:
    """`job` is any row with the job's identity: tenant, queue, id, uid."""
    tx.execute(
        "INSERT INTO events (at, tenant, queue, job_id, uid, state, attempt, reason)"
        " VALUES (:at, :tenant, :queue, :job_id, :uid, :state, :attempt, :reason)",
        at=tx.now,
        tenant=job["tenant"],
        queue=job["queue"],
        job_id=job["id"],
        uid=job["uid"],
        state=state.value,
        attempt=attempt,
        reason=rows.reason_to_json(reason),
    )
    tx.fire("events", f"job:{job['uid']}")


def list_events(
    tx: Transaction, *, after: int, limit: int, tenants: tuple[str, ...] | None
) -> list[JobEvent]:
    if tenants is None:
        found = tx.rows(
            "SELECT * FROM events WHERE sequence > :after ORDER BY sequence LIMIT :limit",
            after=after,
            limit=limit,
        )
        return [rows.event_of(row) for row in found]
    # One lazy cursor per tenant, merged: no tenant's events are read beyond the limit, none of others at all.
    cursors = [
        tx.connection.execute(
            "SELECT * FROM events WHERE tenant = :tenant AND sequence > :after ORDER BY sequence LIMIT :limit",
            {"tenant": tenant, "after": after, "limit": limit},
        )
        for tenant in dict.fromkeys(tenants)
    ]
    merged = heapq.merge(*cursors, key=lambda row: row["sequence"])
    return [rows.event_of(row) for row in islice(merged, limit)]


def event_bounds(tx: Transaction) -> tuple[int, int]:
    issued = tx.row("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
    newest = 0 if issued is None else issued["seq"]
    oldest = tx.one("SELECT min(sequence) AS oldest FROM events")["oldest"]
    return (newest + 1 if oldest is None else oldest), newest


def delete_events(tx: Transaction, *, before: float, limit: int) -> int:
    """Oldest first, and only from the front: the feed has no holes. A clock that jumped back keeps some longer."""
    oldest = tx.rows("SELECT sequence, at FROM events ORDER BY sequence LIMIT :limit", limit=limit)
    last = 0
    for row in oldest:
        if row["at"] >= before:
            break
        last = row["sequence"]
    return tx.execute("DELETE FROM events WHERE sequence <= :last", last=last) if last else 0
