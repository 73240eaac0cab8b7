"""Queues and tenants: their settings. A change of limits takes effect in the transaction that makes it."""

from __future__ import annotations

from runyard.ledger import refusals, rows, statements
from runyard.ledger.sqlite import fairness
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.queue import Queue, QueueSettings, Tenant, TenantSettings

DEFAULT_QUEUE = "default"
LIST_MAX = 10_000


def put_queue(tx: Transaction, settings: QueueSettings) -> Queue:
    refusals.check_weight(f"queue {settings.name!r}", settings.weight)
    tx.execute(
        statements.PUT_QUEUE,
        name=settings.name,
        weight=settings.weight,
        running_max=settings.running_max,
        queued_max=settings.queued_max,
        tenant_running_max=settings.tenant_running_max,
        defaults=rows.to_json(settings.defaults),
        is_paused=settings.is_paused,
        is_configured=settings.is_configured,
    )
    fairness.reblock_queue(tx, settings.name)
    tx.fire("ready")  # resumed or widened: owners look again
    queue = get_queue(tx, settings.name)
    assert queue is not None
    return queue


def get_queue(tx: Transaction, name: str) -> Queue | None:
    row = tx.row(f"{statements.QUEUE} WHERE q.name = :name", name=name)
    return None if row is None else rows.queue_of(row)


def list_queues(tx: Transaction) -> list[Queue]:
    found = tx.rows(f"{statements.QUEUE} ORDER BY q.name LIMIT :limit", limit=LIST_MAX)
    return [rows.queue_of(row) for row in found]


def delete_queue(tx: Transaction, name: str) -> None:
    queue = get_queue(tx, name)
    if queue is None:
        raise refusals.no_queue(name)
    if name == DEFAULT_QUEUE:
        raise refusals.default_queue_stays()
    unfinished = queue.queued + queue.starting + queue.running
    if unfinished:
        raise refusals.queue_busy(name, unfinished)
    for table in ("shares", "lanes", "fair", "pool_queues"):
        tx.execute(f"DELETE FROM {table} WHERE queue = :queue", queue=name)
    tx.execute("DELETE FROM queues WHERE name = :queue", queue=name)


def put_tenant(tx: Transaction, settings: TenantSettings) -> Tenant:
    refusals.check_weight(f"tenant {settings.name!r}", settings.weight)
    tx.execute(
        statements.PUT_TENANT,
        name=settings.name,
        weight=settings.weight,
        running_max=settings.running_max,
        queued_max=settings.queued_max,
        is_configured=settings.is_configured,
    )
    fairness.reblock_tenant(tx, settings.name)
    tenant = get_tenant(tx, settings.name)
    assert tenant is not None
    return tenant


def get_tenant(tx: Transaction, name: str) -> Tenant | None:
    row = tx.row("SELECT * FROM tenants WHERE name = :name", name=name)
    return None if row is None else rows.tenant_of(row)


def list_tenants(tx: Transaction) -> list[Tenant]:
    found = tx.rows("SELECT * FROM tenants ORDER BY name LIMIT :limit", limit=LIST_MAX)
    return [rows.tenant_of(row) for row in found]
