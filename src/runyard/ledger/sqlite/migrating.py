"""Brings a database to this release's schema, all pending migrations in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from runyard.ledger.migrations import Migration, pending


def migrate(
    connection: sqlite3.Connection, migrations: tuple[Migration, ...], *, now: float, where: str
) -> list[str]:
    """Applies what is missing and returns its names. Raises LedgerUnavailable where the database does not fit."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at REAL NOT NULL)"
        )
        rows = connection.execute("SELECT number, name, checksum FROM migrations").fetchall()
        applied = {row["number"]: (row["name"], row["checksum"]) for row in rows}
        missing = pending(migrations, applied, where=where)
        for migration in missing:
            _apply(connection, migration, now)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [migration.name for migration in missing]


def _apply(connection: sqlite3.Connection, migration: Migration, now: float) -> None:
    for statement in _statements(migration.sql):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO migrations (number, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
        (migration.number, migration.name, migration.checksum, now),
    )


def _statements(script: str) -> Iterator[str]:
    """One by one, because executescript would commit the transaction we are in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
