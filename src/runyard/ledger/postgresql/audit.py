"""The audit: who changed what."""

from __future__ import annotations

from runyard.ledger import rows, statements
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.audit import AuditLine


async def add_audit_line(database: Database, line: AuditLine) -> None:
    await database.execute(statements.ADD_AUDIT_LINE, **rows.audit_columns(line))


async def list_audit(snapshot: Snapshot, *, before: int | None, limit: int) -> list[AuditLine]:
    found = await snapshot.rows(statements.LIST_AUDIT, before=rows.newest_or(before), limit=limit)
    return [rows.audit_line_of(row) for row in found]


async def delete_audit(database: Database, *, before: float, limit: int) -> int:
    return await database.execute(statements.DELETE_AUDIT, before=before, limit=limit)
