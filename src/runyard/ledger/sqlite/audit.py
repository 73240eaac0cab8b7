"""The audit: who changed what."""

from __future__ import annotations

from runyard.ledger import rows, statements
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.audit import AuditLine


def add_audit_line(tx: Transaction, line: AuditLine) -> None:
    tx.execute(statements.ADD_AUDIT_LINE, **rows.audit_columns(line))


def list_audit(tx: Transaction, *, before: int | None, limit: int) -> list[AuditLine]:
    found = tx.rows(statements.LIST_AUDIT, before=rows.newest_or(before), limit=limit)
    return [rows.audit_line_of(row) for row in found]


def delete_audit(tx: Transaction, *, before: float, limit: int) -> int:
    return tx.execute(statements.DELETE_AUDIT, before=before, limit=limit)
