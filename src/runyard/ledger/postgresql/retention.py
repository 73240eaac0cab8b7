"""What has outlived its time. The ledger only tells which and remembers that it is gone; others delete the bytes."""

from __future__ import annotations

from collections.abc import Iterable

from runyard.ledger import statements
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.attempt import AttemptKey

MARK_LOGS = (
    "UPDATE attempts a SET is_logs_deleted = 1 FROM unnest(:uids::text[], :numbers::integer[]) AS k (uid, number)"
    " WHERE a.uid = k.uid AND a.number = k.number"
)
MARK_ARTIFACTS = MARK_LOGS.replace("is_logs_deleted", "is_artifacts_deleted")


async def list_expired(
    snapshot: Snapshot, statement: str, *, ended_before: float, limit: int
) -> list[AttemptKey]:
    """Of final jobs only: an unfinished job keeps what its earlier attempts left."""
    found = await snapshot.rows(statement, before=ended_before, limit=limit)
    return [AttemptKey(row["uid"], row["number"]) for row in found]


async def mark_deleted(database: Database, statement: str, keys: Iterable[AttemptKey]) -> None:
    marked = sorted(keys)
    await database.execute(
        statement, uids=[key.uid for key in marked], numbers=[key.number for key in marked]
    )


async def is_logs_deleted(snapshot: Snapshot, key: AttemptKey) -> bool:
    row = await snapshot.row(
        "SELECT is_logs_deleted FROM attempts WHERE uid = :uid AND number = :number",
        uid=key.uid,
        number=key.number,
    )
    return row is not None and bool(row["is_logs_deleted"])


async def list_expired_jobs(snapshot: Snapshot, *, ended_before: float, limit: int) -> list[str]:
    found = await snapshot.rows(statements.LIST_EXPIRED_JOBS, before=ended_before, limit=limit)
    return [row["uid"] for row in found]
