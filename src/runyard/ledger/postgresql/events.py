"""The feed of state changes. functions/01_shared.sql (`publish`) writes it; here it is read and trimmed."""

from __future__ import annotations

from runyard.ledger import rows
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.event import JobEvent


async def list_events(
    snapshot: Snapshot, *, after: int, limit: int, tenants: tuple[str, ...] | None
) -> list[JobEvent]:
    if tenants is None:
        found = await snapshot.rows(
            "SELECT * FROM events WHERE sequence > :after ORDER BY sequence LIMIT :limit",
            after=after,
            limit=limit,
        )
    else:
        found = await snapshot.rows(
            "SELECT e.* FROM unnest(:tenants::text[]) t CROSS JOIN LATERAL (SELECT * FROM events x"
            " WHERE x.tenant = t AND x.sequence > :after ORDER BY x.sequence LIMIT :limit) e"
            " ORDER BY e.sequence LIMIT :limit",
            after=after,
            limit=limit,
            tenants=list(dict.fromkeys(tenants)),
        )
    return [rows.event_of(row) for row in found]


async def event_bounds(snapshot: Snapshot) -> tuple[int, int]:
    row = await snapshot.one(
        "SELECT (SELECT sequence FROM event_head) AS newest, (SELECT min(sequence) FROM events) AS oldest"
    )
    newest, oldest = row["newest"], row["oldest"]
    return (newest + 1 if oldest is None else oldest), newest


async def delete_events(database: Database, *, before: float, limit: int) -> int:
    """Oldest first, and only from the front: the feed has no holes. A clock that jumped back keeps some longer."""
    return await database.execute(
        "WITH oldest AS (SELECT sequence, at FROM events ORDER BY sequence LIMIT :limit),"
        " kept AS (SELECT min(sequence) AS sequence FROM oldest WHERE at >= :before)"
        " DELETE FROM events e USING kept, (SELECT max(sequence) AS sequence FROM oldest) newest"
        " WHERE e.sequence <= newest.sequence AND (kept.sequence IS NULL OR e.sequence < kept.sequence)",
        before=before,
        limit=limit,
    )
