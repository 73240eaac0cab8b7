"""What has outlived its time. The ledger only tells which and remembers that it is gone; others delete the bytes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from runyard.ledger import statements
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.attempt import AttemptKey


class Kept(StrEnum):
    """What an attempt leaves behind; the values are the names of the marking columns."""

    LOGS = "is_logs_deleted"
    ARTIFACTS = "is_artifacts_deleted"


_EXPIRED = {Kept.LOGS: statements.LIST_EXPIRED_LOGS, Kept.ARTIFACTS: statements.LIST_EXPIRED_ARTIFACTS}


def list_expired(tx: Transaction, kept: Kept, *, ended_before: float, limit: int) -> list[AttemptKey]:
    """Of final jobs only: an unfinished job keeps what its earlier attempts left."""
    found = tx.rows(_EXPIRED[kept], before=ended_before, limit=limit)
    return [AttemptKey(row["uid"], row["number"]) for row in found]


def mark_deleted(tx: Transaction, kept: Kept, keys: Iterable[AttemptKey]) -> None:
    for key in keys:
        tx.execute(
            f"UPDATE attempts SET {kept} = 1 WHERE uid = :uid AND number = :number",
            uid=key.uid,
            number=key.number,
        )


def is_logs_deleted(tx: Transaction, key: AttemptKey) -> bool:
    row = tx.row(
        "SELECT is_logs_deleted FROM attempts WHERE uid = :uid AND number = :number",
        uid=key.uid,
        number=key.number,
    )
    return row is not None and bool(row["is_logs_deleted"])


def list_expired_jobs(tx: Transaction, *, ended_before: float, limit: int) -> list[str]:
    found = tx.rows(statements.LIST_EXPIRED_JOBS, before=ended_before, limit=limit)
    return [row["uid"] for row in found]
