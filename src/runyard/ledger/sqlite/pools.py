"""Pools: their shape, who owns them at which epoch, what they answered, and what waits for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from runyard.ledger import demand, refusals, rows, statements
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.pool import Availability, ClassDemand, Fence, Pool, PoolHealth, PoolSettings

POOLS_MAX = 10_000


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
        raise refusals.pool_busy(name, pool.starting + pool.running)
    living = tx.one("SELECT count(*) AS n FROM machines WHERE pool = :pool AND state <> 'gone'", pool=name)
    if living["n"]:
        raise refusals.pool_has_machines(name, living["n"])
    for table in ("availability", "pool_queues", "operations", "machines", "bindings"):
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
        raise refusals.fenced(fence, None if row is None else row["epoch"])
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
        raise refusals.released(fence)
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
    settings = rows.pool_settings_of(need_fenced(tx, fence)["settings"])
    return [
        ClassDemand(
            class_key=one.class_key,
            requirements=rows.requirements_of(
                tx.one("SELECT requirements FROM classes WHERE class_key = :key", key=one.class_key)[
                    "requirements"
                ]
            ),
            queued=one.queued,
            oldest_queued_at=one.oldest_queued_at,
        )
        for one in demand.add_up(settings, tx.rows(statements.LIST_OPEN_LANES))
    ]


def _need_pool(tx: Transaction, name: str) -> Pool:
    pool = get_pool(tx, name)
    if pool is None:
        raise refusals.no_pool(name)
    return pool
