"""Brings a database to this release: its tables by numbered migrations, its functions by their text.

Functions are code, so they come with the release that calls them: in a schema named by the hash of their text and of
where the tables are, which is made when it is not there and never changed. Releases that run side by side each have
their own, over the same tables; what a release left behind costs some kilobytes. All of it happens in one transaction
under an advisory lock, so that of several services that start at once one does it and the others find it done.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

import asyncpg

from runyard.ledger.migrations import Migration, pending
from runyard.model.errors import LedgerUnavailable

_LOCK = 0x52554E59415244  # "RUNYARD"
VERSION_MIN = 13


async def prepare(connection: asyncpg.Connection, migrations: tuple[Migration, ...], *, where: str) -> str:
    """Applies what is missing. Returns the search path that this release's sessions use."""
    _check_server(connection, where)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        rows = await connection.fetch("SELECT number, name, checksum FROM migrations")
        applied = {row["number"]: (row["name"], row["checksum"]) for row in rows}
        for migration in pending(migrations, applied, where=where):
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO migrations (number, name, checksum) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
        return await _add_functions(connection)


async def _add_functions(connection: asyncpg.Connection) -> str:
    """Makes the schema of this release's functions, unless it is there."""
    script = function_script()
    tables_in = await connection.fetchval("SELECT current_schema()")
    path = await connection.fetchval("SHOW search_path")
    schema = f"runyard_{hashlib.sha256(f'{tables_in} {script}'.encode()).hexdigest()[:12]}"
    path = f"{schema}, {path}"
    if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
        await connection.execute(f"CREATE SCHEMA {schema}")
        await connection.execute("SELECT set_config('search_path', $1, true)", path)
        await connection.execute(script)
    return path


def function_script() -> str:
    """All of this release's functions, in the order in which they rest on each other."""
    folder = files(__package__).joinpath("functions")
    parts = sorted(
        (item for item in folder.iterdir() if item.name.endswith(".sql")), key=lambda item: item.name
    )
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


def _check_server(connection: asyncpg.Connection, where: str) -> None:
    version = connection.get_server_version()
    if version.major < VERSION_MIN:
        raise LedgerUnavailable(
            f"ledger {where}: the server is PostgreSQL {version.major}, Runyard needs {VERSION_MIN} or newer",
            cure="upgrade the server, or name another one in [ledger] url",
        )
