"""Brings a database to this release: its tables by numbered migrations, its functions by their text.

Functions are code, so they come with the release that calls them: in a schema named by the hash of their text and of
where the tables are, which is made when it is not there and never changed. Releases that run side by side each have
their own, over the same tables; what a release left behind costs some kilobytes. All of it happens in one transaction
under an advisory lock, so that of several services that start at once one does it and the others find it done.

A service says by a shared advisory lock that it is there, and up to which migration it knows, for as long as its
listening session lasts. A migration that cannot live beside one that is there is refused, not applied under its feet.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from importlib.resources import files

import asyncpg

from runyard.ledger.migrations import Applied, Migration, newest, pending
from runyard.model.errors import LedgerUnavailable

_LOCK = 0x52554E59415244  # "RUNYARD"
_PRESENT = 0x52554E  # "RUN", the first key; the second is the newest migration that the service knows
VERSION_MIN = 13
GONE_WITHIN_S = 2.0
"""How long the session of a service that was just stopped may still be seen."""


async def prepare(connection: asyncpg.Connection, migrations: tuple[Migration, ...], *, where: str) -> str:
    """Applies what is missing. Returns the search path that this release's sessions use."""
    _check_server(connection, where)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        await connection.execute("ALTER TABLE migrations ADD COLUMN IF NOT EXISTS beside integer")
        missing = pending(migrations, await _applied(connection), where=where)
        await _wait_for_room(connection, missing, where)
        for migration in missing:
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO migrations (number, name, checksum, beside) VALUES ($1, $2, $3, $4)",
                migration.number,
                migration.name,
                migration.checksum,
                migration.beside,
            )
        return await _add_functions(connection)


async def announce(connection: asyncpg.Connection, migrations: tuple[Migration, ...], *, where: str) -> None:
    """Says on a session that lasts that a service of this release is there. Raises LedgerUnavailable where the
    database was taken further, meanwhile, than this release can live with."""
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        await connection.execute(
            "SELECT pg_advisory_xact_lock_shared($1)", _LOCK
        )  # after who migrates, or before
        await connection.execute("SELECT pg_advisory_lock_shared($1, $2)", _PRESENT, newest(migrations))
        pending(migrations, await _applied(connection), where=where)


async def _applied(connection: asyncpg.Connection) -> dict[int, Applied]:
    rows = await connection.fetch("SELECT number, name, checksum, beside FROM migrations")
    return {row["number"]: Applied(*row) for row in rows}


async def _wait_for_room(connection: asyncpg.Connection, missing: tuple[Migration, ...], where: str) -> None:
    """Returns when nobody is there that could not go on. Raises LedgerUnavailable."""
    if not missing:
        return
    hardest = max(missing, key=lambda migration: migration.beside)
    until = time.monotonic() + GONE_WITHIN_S
    while (upto := await connection.fetchval(_LEAST_PRESENT, _PRESENT)) is not None and upto < hardest.beside:
        if time.monotonic() > until:
            raise LedgerUnavailable(
                f"ledger {where}: a service of an older Runyard (it knows migrations up to {upto}) works on it, "
                f"and {hardest.name} cannot be applied beside it",
                cure="stop the older services (what they run goes on), then start this one",
            )
        await asyncio.sleep(0.1)


_LEAST_PRESENT = (
    "SELECT min(objid::bigint) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
    " AND classid::bigint = $1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


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
