"""Pools: their shape, who owns them at which epoch, what they answered, what waits for them, what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from runyard.ledger import demand, refusals, rows, statements
from runyard.ledger.postgresql.database import Database, Role
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.operation import Operation, OperationKind
from runyard.model.pool import Availability, ClassDemand, Fence, Pool, PoolHealth, PoolSettings

POOLS_MAX = 10_000
OPERATIONS_MAX = 1000
_POOL = "SELECT p.*, runyard_now(:at) AS now FROM pool_row p"


# -- shape --------------------------------------------------------------------------------------------------------
async def put_pool(database: Database, settings: PoolSettings) -> Pool:
    await database.call("put_pool", {"name": settings.name, "settings": rows.to_json(settings)})
    return await _need_pool(database, settings.name)


async def get_pool(snapshot: Snapshot, name: str) -> Pool | None:
    row = await snapshot.row(f"{_POOL} WHERE p.name = :name", name=name, at=snapshot.at)
    return None if row is None else rows.pool_of(row, row["now"])


async def list_pools(snapshot: Snapshot) -> list[Pool]:
    found = await snapshot.rows(f"{_POOL} ORDER BY p.name LIMIT :limit", limit=POOLS_MAX, at=snapshot.at)
    return [rows.pool_of(row, row["now"]) for row in found]


async def delete_pool(database: Database, name: str) -> None:
    answer = await database.call("delete_pool", {"name": name})
    if answer.get("refused") == "no_pool":
        raise refusals.no_pool(name)
    if answer.get("refused") == "pool_busy":
        raise refusals.pool_busy(name, answer["unfinished"])
    if answer.get("refused") == "pool_has_machines":
        raise refusals.pool_has_machines(name, answer["machines"])


async def set_pool_paused(database: Database, name: str, *, is_paused: bool) -> Pool:
    answer = await database.call("set_pool_paused", {"name": name, "is_paused": is_paused})
    if "refused" in answer:
        raise refusals.no_pool(name)
    return await _need_pool(database, name)


async def _need_pool(database: Database, name: str) -> Pool:
    async with database.read() as snapshot:
        pool = await get_pool(snapshot, name)
    if pool is None:
        raise refusals.no_pool(name)
    return pool


# -- ownership ----------------------------------------------------------------------------------------------------
async def call_fenced(
    database: Database,
    function: str,
    fence: Fence,
    document: Mapping[str, Any],
    *,
    role: Role = Role.WRITE,
) -> dict[str, Any]:
    """Raises Fenced where the fence's epoch is no longer the pool's; other refusals are the caller's."""
    answer = await database.call(function, {"pool": fence.pool, "epoch": fence.epoch, **document}, role=role)
    if answer.get("refused") == "fenced":
        raise refusals.fenced(fence, answer["epoch"])
    return answer


async def need_fenced(snapshot: Snapshot, fence: Fence) -> asyncpg.Record:
    """The pool's row, for reads. Raises Fenced."""
    row = await snapshot.row("SELECT epoch, settings FROM pools WHERE name = :name", name=fence.pool)
    if row is None or row["epoch"] != fence.epoch:
        raise refusals.fenced(fence, None if row is None else row["epoch"])
    return row


async def acquire_pool(database: Database, name: str, *, owner: str, lease_s: float) -> Fence | None:
    answer = await database.call("acquire_pool", {"name": name, "owner": owner, "lease_s": lease_s})
    if "refused" in answer:
        raise refusals.no_pool(name)
    return None if answer["epoch"] is None else Fence(name, answer["epoch"])


async def renew_pool(database: Database, fence: Fence, *, lease_s: float) -> None:
    answer = await call_fenced(database, "renew_pool", fence, {"lease_s": lease_s})
    if "refused" in answer:
        raise refusals.released(fence)


async def release_pool(database: Database, fence: Fence) -> None:
    await call_fenced(database, "release_pool", fence, {})


# -- what the owner states ----------------------------------------------------------------------------------------
async def set_pool_health(database: Database, fence: Fence, *, health: PoolHealth, message: str) -> None:
    document = {"health": health.value, "message": storable(message)}
    await call_fenced(database, "set_pool_health", fence, document)


async def set_availability(database: Database, fence: Fence, answers: Mapping[str, Availability]) -> None:
    documents = [
        {
            "class_key": class_key,
            "kind": answer.kind.value,
            "room": answer.room,
            "code": None if answer.code is None else answer.code.value,
            "why": storable(answer.why),
            "eta_s": answer.eta_s,
        }
        for class_key, answer in answers.items()
    ]
    await call_fenced(database, "set_availability", fence, {"answers": documents})


def storable(text: str) -> str:
    """What PostgreSQL's text cannot hold must not cost the message around it."""
    return text.replace("\0", "\ufffd")


# -- what waits for it --------------------------------------------------------------------------------------------
async def list_demand(snapshot: Snapshot, fence: Fence) -> list[ClassDemand]:
    settings = rows.pool_settings_of((await need_fenced(snapshot, fence))["settings"])
    waiting = demand.add_up(settings, await snapshot.rows(statements.LIST_OPEN_LANES))
    found = await snapshot.rows(
        "SELECT class_key, requirements FROM classes WHERE class_key = ANY (:keys)",
        keys=[one.class_key for one in waiting],
    )
    requirements = {row["class_key"]: rows.requirements_of(row["requirements"]) for row in found}
    return [
        ClassDemand(
            class_key=one.class_key,
            requirements=requirements[one.class_key],
            queued=one.queued,
            oldest_queued_at=one.oldest_queued_at,
        )
        for one in waiting
    ]


# -- operations ---------------------------------------------------------------------------------------------------
async def request_operation(
    database: Database, pool: str, kind: OperationKind, arguments: Mapping[str, Any]
) -> Operation:
    document = {"pool": pool, "kind": kind.value, "arguments": rows.to_json(arguments)}
    answer = await database.call("request_operation", document)
    if "refused" in answer:
        raise refusals.no_pool(pool)
    async with database.read() as snapshot:
        row = await snapshot.one("SELECT * FROM operations WHERE number = :number", number=answer["number"])
    return rows.operation_of(row)


async def list_operations(snapshot: Snapshot, pool: str) -> list[Operation]:
    found = await snapshot.rows(
        "SELECT * FROM operations WHERE pool = :pool AND finished_at IS NULL ORDER BY number LIMIT :limit",
        pool=pool,
        limit=OPERATIONS_MAX,
    )
    return [rows.operation_of(row) for row in found]


async def get_operation(snapshot: Snapshot, operation_id: str) -> Operation | None:
    row = await snapshot.row(
        "SELECT * FROM operations WHERE number = :number", number=rows.operation_number(operation_id)
    )
    return None if row is None else rows.operation_of(row)


async def get_last_answered(snapshot: Snapshot, pool: str, kind: OperationKind) -> Operation | None:
    row = await snapshot.row(statements.LAST_ANSWERED, pool=pool, kind=kind.value)
    return None if row is None else rows.operation_of(row)


async def finish_operation(
    database: Database, fence: Fence, operation_id: str, result: Mapping[str, Any]
) -> None:
    document = {"number": rows.operation_number(operation_id), "result": rows.to_json(result)}
    answer = await call_fenced(database, "finish_operation", fence, document)
    if "refused" in answer:
        raise refusals.no_operation(fence.pool, operation_id)
