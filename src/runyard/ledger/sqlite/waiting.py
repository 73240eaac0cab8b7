"""Waiting jobs: what falls due for them with time, and the facts that explain one's wait."""

from __future__ import annotations

from runyard.ledger import demand, rows, statements
from runyard.ledger.sqlite import fairness, jobs, pools, queues
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.job import Job, JobState
from runyard.model.outcome import Reason, ReasonCode
from runyard.model.pool import ClassAvailability
from runyard.model.waiting import TenantShare, WaitFacts

SHARES_MAX = 300
AHEAD_MAX = 100_000  # the count stops there


def expire_queued(tx: Transaction, *, limit: int) -> list[str]:
    """The deadline ends with the first claim, so a job that was withdrawn and waits again is not meant."""
    due = tx.rows(
        "SELECT * FROM jobs WHERE state = 'queued' AND attempts = 0 AND queue_deadline_at IS NOT NULL"
        " AND queue_deadline_at <= :now ORDER BY queue_deadline_at LIMIT :limit",
        now=tx.now,
        limit=limit,
    )
    for row in due:
        waited_s = round(row["queue_deadline_at"] - row["submitted_at"], 3)
        message = f"no pool took it within its limits.queue of {waited_s:g} s"
        jobs.end_queued(tx, row, JobState.TIMED_OUT, Reason(code=ReasonCode.QUEUE_TIMEOUT, message=message))
    return [row["uid"] for row in due]


def promote_due(tx: Transaction, *, limit: int) -> int:
    due = tx.rows(
        "SELECT serial, queue, class_key, tenant FROM jobs"
        " WHERE state = 'queued' AND is_ready = 0 AND not_before <= :now ORDER BY not_before LIMIT :limit",
        now=tx.now,
        limit=limit,
    )
    for row in due:
        tx.execute("UPDATE jobs SET is_ready = 1 WHERE serial = :serial", serial=row["serial"])
        fairness.become_ready(tx, row["queue"], row["class_key"], row["tenant"])
    return len(due)


def next_due_at(tx: Transaction) -> float | None:
    row = tx.one(statements.NEXT_DUE)
    return min((at for at in (row["deadline"], row["retry"]) if at is not None), default=None)


def wait_facts(tx: Transaction, uid: str) -> WaitFacts | None:
    job = jobs.get_job(tx, uid)
    if job is None or job.state != JobState.QUEUED:
        return None
    queue, tenant = queues.get_queue(tx, job.queue), queues.get_tenant(tx, job.tenant)
    assert queue is not None, "a queue with a queued job cannot be deleted"
    assert tenant is not None
    share = tx.one(
        "SELECT running FROM shares WHERE queue = :queue AND tenant = :tenant",
        queue=job.queue,
        tenant=job.tenant,
    )
    return WaitFacts(
        now=tx.now,
        job=job,
        queue=queue,
        tenant=tenant,
        tenant_running_in_queue=share["running"],
        pools=tuple(pool for pool in pools.list_pools(tx) if demand.serves(pool.settings, job.queue)),
        availability=_availability(tx, job),
        ahead_in_tenant=_count_ahead(tx, job),
        shares=_shares(tx, job.queue),
    )


def _availability(tx: Transaction, job: Job) -> tuple[ClassAvailability, ...]:
    found = tx.rows(statements.LIST_AVAILABILITY, class_key=job.spec.requirements.class_key())
    return tuple(rows.class_availability_of(row) for row in found)


def _count_ahead(tx: Transaction, job: Job) -> int:
    """Over the tenant's classes, in the order of the ready index."""
    ahead = 0
    classes = tx.rows(
        "SELECT class_key FROM fair WHERE tenant = :tenant AND queue = :queue",
        tenant=job.tenant,
        queue=job.queue,
    )
    for row in classes:
        ahead += tx.one(
            statements.COUNT_HIGHER,
            queue=job.queue,
            class_key=row["class_key"],
            tenant=job.tenant,
            priority=job.spec.priority,
            most=AHEAD_MAX,
        )["ahead"]
        ahead += tx.one(
            statements.COUNT_OLDER,
            queue=job.queue,
            class_key=row["class_key"],
            tenant=job.tenant,
            priority=job.spec.priority,
            queued_at=job.queued_at,
            uid=job.uid,
            most=AHEAD_MAX,
        )["ahead"]
    return ahead


def _shares(tx: Transaction, queue: str) -> tuple[TenantShare, ...]:
    found = tx.rows(statements.LIST_SHARES, queue=queue, limit=SHARES_MAX)
    return tuple(
        TenantShare(
            tenant=row["tenant"], weight=row["weight"], virtual_time=row["vtime"], queued=row["queued"]
        )
        for row in found
    )


def oldest_ready(tx: Transaction, queue: str) -> str | None:
    row = tx.row(statements.OLDEST_READY, queue=queue)
    return None if row is None else str(row["uid"])
