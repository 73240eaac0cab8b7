"""Waiting jobs: what falls due for them with time, and the facts that explain one's wait."""

from __future__ import annotations

from runyard.ledger import demand, rows, statements
from runyard.ledger.postgresql import jobs, pools, queues
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.job import Job, JobState
from runyard.model.pool import ClassAvailability
from runyard.model.waiting import TenantShare, WaitFacts

SHARES_MAX = 300
AHEAD_MAX = 100_000  # the count stops there


async def expire_queued(database: Database, *, limit: int) -> list[str]:
    document = {"limit": limit, "message": "no pool took it within its limits.queue of %s s"}
    answer = await database.call("expire_queued", document)
    return list(answer["uids"])


async def promote_due(database: Database, *, limit: int) -> int:
    return int((await database.call("promote_due", {"limit": limit}))["count"])


async def next_due_at(snapshot: Snapshot) -> float | None:
    row = await snapshot.one(statements.NEXT_DUE)
    return min((at for at in (row["deadline"], row["retry"]) if at is not None), default=None)


async def wait_facts(snapshot: Snapshot, uid: str) -> WaitFacts | None:
    job = await jobs.get_job(snapshot, uid)
    if job is None or job.state != JobState.QUEUED:
        return None
    queue, tenant = await queues.get_queue(snapshot, job.queue), await queues.get_tenant(snapshot, job.tenant)
    assert queue is not None, "a queue with a queued job cannot be deleted"
    assert tenant is not None
    row = await snapshot.one(
        "SELECT running, runyard_now(:at) AS now FROM shares WHERE queue = :queue AND tenant = :tenant",
        at=snapshot.at,
        queue=job.queue,
        tenant=job.tenant,
    )
    served = [pool for pool in await pools.list_pools(snapshot) if demand.serves(pool.settings, job.queue)]
    return WaitFacts(
        now=row["now"],
        job=job,
        queue=queue,
        tenant=tenant,
        tenant_running_in_queue=row["running"],
        pools=tuple(served),
        availability=await _availability(snapshot, job),
        ahead_in_tenant=await _count_ahead(snapshot, job),
        shares=await _shares(snapshot, job.queue),
    )


async def _availability(snapshot: Snapshot, job: Job) -> tuple[ClassAvailability, ...]:
    found = await snapshot.rows(statements.LIST_AVAILABILITY, class_key=job.spec.requirements.class_key())
    return tuple(rows.class_availability_of(row) for row in found)


async def _count_ahead(snapshot: Snapshot, job: Job) -> int:
    """Over the tenant's classes, in the order of the ready index."""
    ahead = 0
    classes = await snapshot.rows(
        "SELECT class_key FROM fair WHERE tenant = :tenant AND queue = :queue",
        tenant=job.tenant,
        queue=job.queue,
    )
    for row in classes:
        for statement in (statements.COUNT_HIGHER, statements.COUNT_OLDER):
            counted = await snapshot.one(
                statement,
                queue=job.queue,
                class_key=row["class_key"],
                tenant=job.tenant,
                priority=job.spec.priority,
                queued_at=job.queued_at,
                uid=job.uid,
                most=AHEAD_MAX,
            )
            ahead += counted["ahead"]
    return ahead


async def _shares(snapshot: Snapshot, queue: str) -> tuple[TenantShare, ...]:
    found = await snapshot.rows(statements.LIST_SHARES, queue=queue, limit=SHARES_MAX)
    return tuple(
        TenantShare(
            tenant=row["tenant"], weight=row["weight"], virtual_time=row["vtime"], queued=row["queued"]
        )
        for row in found
    )


async def oldest_ready(snapshot: Snapshot, queue: str) -> str | None:
    row = await snapshot.row(statements.OLDEST_READY, queue=queue)
    return None if row is None else str(row["uid"])
