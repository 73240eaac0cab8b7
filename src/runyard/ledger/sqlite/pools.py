"""Pools: their shape, who owns them at which epoch, what they answered, and what waits for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from runyard.ledger import rows, statements
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.errors import Conflict, Fenced, NotFound
from runyard.model.pool import Availability, ClassDemand, Fence, Pool, PoolHealth, PoolSettings

DEMAND_CLASSES_MAX = 1000
POOLS_MAX = 10_000


def serves(settings: PoolSettings, queue: str) -> bool:
    return "*" in settings.queues or queue in settings.queues


# -- shape --------------------------------------------------------------------------------------------------------
def put_pool(tx: Transaction, settings: PoolSettings) -> Pool:
    tx.execute(
        "INSERT INTO pools (name, settings) VALUES (:name, :settings)"
        " ON CONFLICT (name) DO UPDATE SET settings = excluded.settings",
        name=settings.name,
        settings=rows.to_json(settings),
    )
    return _need_pool(tx, settings.name)


def get_pool(tx: Transaction, name: str) -> Pool | None:
    row = tx.row("SELECT * FROM pools WHERE name = :name", name=name)
    return None if row is None else rows.pool_of(row, tx.now)


def list_pools(tx: Transaction) -> list[Pool]:
    found = tx.rows("SELECT * FROM pools ORDER BY name LIMIT :limit", limit=POOLS_MAX)
    return [rows.pool_of(row, tx.now) for row in found]


def delete_pool(tx: Transaction, name: str) -> None:
    pool = _need_pool(tx, name)
    if pool.starting + pool.running:
        raise Conflict(
            f"pool {name!r} has {pool.starting + pool.running} unfinished attempts",
            cure="pause it and wait until they have ended, or cancel their jobs",
        )
    for table in ("availability", "pool_queues", "operations"):
        tx.execute(f"DELETE FROM {table} WHERE pool = :pool", pool=name)
    tx.execute("DELETE FROM pools WHERE name = :pool", pool=name)
    tx.fire(f"pool:{name}")


def set_pool_paused(tx: Transaction, name: str, *, is_paused: bool) -> Pool:
    _need_pool(tx, name)
    tx.execute("UPDATE pools SET is_paused = :is_paused WHERE name = :name", is_paused=is_paused, name=name)
    tx.fire(f"pool:{name}")
    return _need_pool(tx, name)


# -- ownership ----------------------------------------------------------------------------------------------------
def need_fenced(tx: Transaction, fence: Fence) -> sqlite3.Row:
    """The pool's row, if the fence's epoch is still the pool's. Raises Fenced. On SQLite the transaction itself is the
    lock: no takeover can come between this look and the commit."""
    row = tx.row("SELECT * FROM pools WHERE name = :pool", pool=fence.pool)
    if row is None or row["epoch"] != fence.epoch:
        epoch = "gone" if row is None else f"at epoch {row['epoch']}"
        raise Fenced(f"pool {fence.pool!r} is {epoch}; epoch {fence.epoch} may not write for it any more")
    return row


def acquire_pool(tx: Transaction, name: str, *, owner: str, lease_s: float) -> Fence | None:
    """Health starts anew with each ownership: the new owner has not looked yet."""
    pool = _need_pool(tx, name)
    if pool.owner is not None and pool.owner != owner:
        return None
    tx.execute(
        "UPDATE pools SET epoch = epoch + 1, owner = :owner, lease_until = :until, health = 'unowned',"
        " health_message = '' WHERE name = :name",
        owner=owner,
        until=tx.now + lease_s,
        name=name,
    )
    tx.fire(f"pool:{name}")
    return Fence(name, pool.epoch + 1)


def renew_pool(tx: Transaction, fence: Fence, *, lease_s: float) -> None:
    row = need_fenced(tx, fence)
    if row["owner"] is None:
        raise Fenced(f"pool {fence.pool!r} was released at epoch {fence.epoch}; acquire it again")
    tx.execute(
        "UPDATE pools SET lease_until = :until WHERE name = :name", until=tx.now + lease_s, name=fence.pool
    )


def release_pool(tx: Transaction, fence: Fence) -> None:
    tx.execute(
        "UPDATE pools SET owner = NULL, lease_until = NULL, health = 'unowned', health_message = ''"
        " WHERE name = :name AND epoch = :epoch",
        name=fence.pool,
        epoch=fence.epoch,
    )
    tx.fire(f"pool:{fence.pool}")


# -- what the owner states ----------------------------------------------------------------------------------------
def set_pool_health(tx: Transaction, fence: Fence, *, health: PoolHealth, message: str) -> None:
    need_fenced(tx, fence)
    tx.execute(
        "UPDATE pools SET health = :health, health_message = :message WHERE name = :name",
        health=health.value,
        message=message,
        name=fence.pool,
    )


def set_availability(tx: Transaction, fence: Fence, answers: Mapping[str, Availability]) -> None:
    need_fenced(tx, fence)
    for class_key, answer in answers.items():
        tx.execute(
            statements.SET_AVAILABILITY,
            pool=fence.pool,
            class_key=class_key,
            kind=answer.kind.value,
            room=answer.room,
            code=None if answer.code is None else answer.code.value,
            why=answer.why,
            eta_s=answer.eta_s,
            now=tx.now,
        )


# -- what waits for it --------------------------------------------------------------------------------------------
def list_demand(tx: Transaction, fence: Fence) -> list[ClassDemand]:
    """From the lanes' counters, those that wait longest first."""
    settings = rows.pool_settings_of(need_fenced(tx, fence)["settings"])
    queued: dict[str, int] = {}
    oldest: dict[str, float] = {}
    for lane in tx.rows(statements.LIST_OPEN_LANES):
        if serves(settings, lane["queue"]):
            key = lane["class_key"]
            queued[key] = queued.get(key, 0) + lane["ready"]
            oldest[key] = min(oldest.get(key, lane["oldest_queued_at"]), lane["oldest_queued_at"])
    first = sorted(queued, key=lambda key: (oldest[key], key))[:DEMAND_CLASSES_MAX]
    return [
        ClassDemand(
            class_key=key,
            requirements=rows.requirements_of(
                tx.one("SELECT requirements FROM classes WHERE class_key = :key", key=key)["requirements"]
            ),
            queued=queued[key],
            oldest_queued_at=oldest[key],
        )
        for key in first
    ]


def _need_pool(tx: Transaction, name: str) -> Pool:
    pool = get_pool(tx, name)
    if pool is None:
        raise NotFound(f"there is no pool {name!r}", field="pool")
    return pool
