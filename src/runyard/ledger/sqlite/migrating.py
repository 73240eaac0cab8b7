"""Brings a database to this release's schema, all pending migrations in one transaction.

Nobody else works on the file meanwhile (its lock says so), so only a release that comes later must fit what it finds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from runyard.ledger.migrations import Applied, Migration, pending


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
        _add_beside(connection)
        rows = connection.execute("SELECT number, name, checksum, beside FROM migrations").fetchall()
        missing = pending(migrations, {row["number"]: Applied(*row) for row in rows}, where=where)
        for migration in missing:
            _apply(connection, migration, now)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [migration.name for migration in missing]


def _add_beside(connection: sqlite3.Connection) -> None:
    """The column is younger than the table."""
    columns = {row["name"] for row in connection.execute("PRAGMA table_info(migrations)")}
    if "beside" not in columns:
        connection.execute("ALTER TABLE migrations ADD COLUMN beside INTEGER")


def _apply(connection: sqlite3.Connection, migration: Migration, now: float) -> None:
    for statement in _statements(migration.sql):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO migrations (number, name, checksum, applied_at, beside) VALUES (?, ?, ?, ?, ?)",
        (migration.number, migration.name, migration.checksum, now, migration.beside),
    )


def _statements(script: str) -> Iterator[str]:
    """One by one, because executescript would commit the transaction we are in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
