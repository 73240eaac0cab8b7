"""Secrets, sealed: what is here opens with no key of this room."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.ledger import rows, statements
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.audit import AuditLine
from runyard.model.secret import StoredSecret

_NOTE_USE = f"WITH used AS ({statements.NOTE_SECRET_USED}) {statements.ADD_AUDIT_LINE}"


async def put_secret(database: Database, secret: StoredSecret) -> None:
    await database.execute(statements.PUT_SECRET, **rows.secret_columns(secret))


async def get_secret(snapshot: Snapshot, tenant: str, name: str) -> StoredSecret | None:
    row = await snapshot.row(statements.GET_SECRET, tenant=tenant, name=name)
    return None if row is None else rows.secret_of(row)


async def list_secrets(snapshot: Snapshot, tenant: str | None, *, limit: int) -> list[StoredSecret]:
    if tenant is None:
        found = await snapshot.rows(statements.LIST_ALL_SECRETS, limit=limit)
    else:
        found = await snapshot.rows(statements.LIST_SECRETS, tenant=tenant, limit=limit)
    return [rows.secret_of(row) for row in found]


async def delete_secret(database: Database, tenant: str, name: str) -> bool:
    return await database.execute(statements.DELETE_SECRET, tenant=tenant, name=name) > 0


async def note_secrets_used(
    database: Database, uses: Sequence[tuple[StoredSecret, AuditLine]], *, attempt: str
) -> None:
    """One by one: a crash between leaves lines of a hand-out that did not come about, never one without its line."""
    for secret, line in uses:
        await database.execute(
            _NOTE_USE,
            tenant=secret.tenant,
            name=secret.name,
            version=secret.version,
            attempt=attempt,
            **rows.audit_columns(line),
        )


async def count_secret_keys(snapshot: Snapshot) -> dict[str, int]:
    found = await snapshot.rows(statements.COUNT_SECRET_KEYS, limit=statements.SECRET_KEYS_MAX)
    return {row["key_id"]: row["held"] for row in found}


async def list_secrets_of_key(snapshot: Snapshot, key_id: str, *, limit: int) -> list[StoredSecret]:
    found = await snapshot.rows(statements.LIST_SECRETS_OF_KEY, key_id=key_id, limit=limit)
    return [rows.secret_of(row) for row in found]


async def reseal_secret(database: Database, seen: StoredSecret, *, key_id: str, sealed: bytes) -> bool:
    changed = await database.execute(
        statements.RESEAL_SECRET,
        tenant=seen.tenant,
        name=seen.name,
        version=seen.version,
        seen_key_id=seen.key_id,
        key_id=key_id,
        sealed=sealed,
    )
    return changed > 0


async def secret_realm(database: Database, proposed: str) -> str:
    await database.execute(statements.MAKE_SECRET_REALM, name=proposed)
    async with database.read() as snapshot:
        return str((await snapshot.one(statements.SECRET_REALM))["name"])
