"""Secrets, sealed: what is here opens with no key of this room."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.ledger import rows, statements
from runyard.ledger.sqlite import audit
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.audit import AuditLine
from runyard.model.secret import StoredSecret


def put_secret(tx: Transaction, secret: StoredSecret) -> None:
    tx.execute(statements.PUT_SECRET, **rows.secret_columns(secret))


def get_secret(tx: Transaction, tenant: str, name: str) -> StoredSecret | None:
    row = tx.row(statements.GET_SECRET, tenant=tenant, name=name)
    return None if row is None else rows.secret_of(row)


def list_secrets(tx: Transaction, tenant: str | None, *, limit: int) -> list[StoredSecret]:
    if tenant is None:
        return [rows.secret_of(row) for row in tx.rows(statements.LIST_ALL_SECRETS, limit=limit)]
    return [rows.secret_of(row) for row in tx.rows(statements.LIST_SECRETS, tenant=tenant, limit=limit)]


def delete_secret(tx: Transaction, tenant: str, name: str) -> bool:
    return tx.execute(statements.DELETE_SECRET, tenant=tenant, name=name) > 0


def note_secrets_used(
    tx: Transaction, uses: Sequence[tuple[StoredSecret, AuditLine]], *, attempt: str
) -> None:
    for secret, line in uses:
        tx.execute(
            statements.NOTE_SECRET_USED,
            tenant=secret.tenant,
            name=secret.name,
            version=secret.version,
            at=line.at,
            attempt=attempt,
        )
        audit.add_audit_line(tx, line)


def count_secret_keys(tx: Transaction) -> dict[str, int]:
    found = tx.rows(statements.COUNT_SECRET_KEYS, limit=statements.SECRET_KEYS_MAX)
    return {row["key_id"]: row["held"] for row in found}


def list_secrets_of_key(tx: Transaction, key_id: str, *, limit: int) -> list[StoredSecret]:
    found = tx.rows(statements.LIST_SECRETS_OF_KEY, key_id=key_id, limit=limit)
    return [rows.secret_of(row) for row in found]


def reseal_secret(tx: Transaction, seen: StoredSecret, *, key_id: str, sealed: bytes) -> bool:
    changed = tx.execute(
        statements.RESEAL_SECRET,
        tenant=seen.tenant,
        name=seen.name,
        version=seen.version,
        seen_key_id=seen.key_id,
        key_id=key_id,
        sealed=sealed,
    )
    return changed > 0


def secret_realm(tx: Transaction, proposed: str) -> str:
    tx.execute(statements.MAKE_SECRET_REALM, name=proposed)
    return str(tx.one(statements.SECRET_REALM)["name"])
