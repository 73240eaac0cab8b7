"""Operations: asked by the API, answered by the owner of the pool, both through these rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runyard.ledger import refusals, rows, statements
from runyard.ledger.sqlite import pools
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.operation import Operation, OperationKind
from runyard.model.pool import Fence

LIST_MAX = 1000


def request_operation(
    tx: Transaction, pool: str, kind: OperationKind, arguments: Mapping[str, Any]
) -> Operation:
    if pools.get_pool(tx, pool) is None:
        raise refusals.no_pool(pool)
    number = tx.insert(
        "INSERT INTO operations (pool, kind, arguments, requested_at) VALUES (:pool, :kind, :arguments, :now)",
        pool=pool,
        kind=kind.value,
        arguments=rows.to_json(arguments),
        now=tx.now,
    )
    tx.fire(f"pool:{pool}")
    return rows.operation_of(tx.one("SELECT * FROM operations WHERE number = :number", number=number))


def list_operations(tx: Transaction, pool: str) -> list[Operation]:
    found = tx.rows(
        "SELECT * FROM operations WHERE pool = :pool AND finished_at IS NULL ORDER BY number LIMIT :limit",
        pool=pool,
        limit=LIST_MAX,
    )
    return [rows.operation_of(row) for row in found]


def get_operation(tx: Transaction, operation_id: str) -> Operation | None:
    row = tx.row(
        "SELECT * FROM operations WHERE number = :number", number=rows.operation_number(operation_id)
    )
    return None if row is None else rows.operation_of(row)


def get_last_answered(tx: Transaction, pool: str, kind: OperationKind) -> Operation | None:
    row = tx.row(statements.LAST_ANSWERED, pool=pool, kind=kind.value)
    return None if row is None else rows.operation_of(row)


def finish_operation(tx: Transaction, fence: Fence, operation_id: str, result: Mapping[str, Any]) -> None:
    """The first answer stands. Fires the pool's topic, so that who asked can wait for it."""
    pools.need_fenced(tx, fence)
    operation = get_operation(tx, operation_id)
    if operation is None or operation.pool != fence.pool:
        raise refusals.no_operation(fence.pool, operation_id)
    tx.execute(
        "UPDATE operations SET finished_at = :now, result = :result WHERE number = :number AND finished_at IS NULL",
        now=tx.now,
        result=rows.to_json(result),
        number=rows.operation_number(operation_id),
    )
    tx.fire(f"pool:{fence.pool}")
