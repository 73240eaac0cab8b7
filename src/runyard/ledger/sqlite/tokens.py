"""Tokens: only the hash of a secret is ever here."""

from __future__ import annotations

from runyard.ledger import rows, statements
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.token import Token

LIST_MAX = 10_000


def put_token(tx: Transaction, token: Token) -> None:
    tx.execute(
        statements.PUT_TOKEN,
        id=token.id,
        name=token.name,
        secret_hash=token.secret_hash,
        scope=token.scope.value,
        tenants=None if token.tenants is None else rows.to_json(token.tenants),
        created_at=token.created_at,
        expires_at=token.expires_at,
        kind=token.kind.value,
        parent=token.parent,
    )


def find_token(tx: Transaction, secret_hash: str) -> Token | None:
    row = tx.row("SELECT * FROM tokens WHERE secret_hash = :secret_hash", secret_hash=secret_hash)
    return None if row is None else rows.token_of(row)


def list_tokens(tx: Transaction) -> list[Token]:
    found = tx.rows("SELECT * FROM tokens ORDER BY created_at, id LIMIT :limit", limit=LIST_MAX)
    return [rows.token_of(row) for row in found]


def delete_token(tx: Transaction, token_id: str) -> bool:
    tx.execute(statements.DELETE_CHILDREN, id=token_id)
    return tx.execute(statements.DELETE_TOKEN, id=token_id) > 0


def delete_expired_sessions(tx: Transaction, *, before: float, limit: int) -> int:
    return tx.execute(statements.DELETE_EXPIRED_SESSIONS, before=before, limit=limit)
