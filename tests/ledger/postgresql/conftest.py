"""Several services on one database, as they are in production: on the database's own clock."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from runyard.ledger.postgresql.ledger import PostgresqlLedger
from runyard.testing.postgres_server import PostgresServer
from tests.postgres_server import shared_server

Start = Callable[[], Awaitable[PostgresqlLedger]]


@pytest.fixture
def server() -> PostgresServer:
    return shared_server()


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.new_database()


@pytest.fixture
async def start(url: str) -> AsyncIterator[Start]:
    """Starts a service's ledger on the test's database; all are closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one() -> PostgresqlLedger:
            ledger = PostgresqlLedger(url)
            await ledger.open()
            stack.push_async_callback(ledger.close)
            return ledger

        yield open_one


@pytest.fixture
async def session(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of the test's own, with this release's functions in reach."""
    connection = await asyncpg.connect(url)
    schema = await connection.fetchval("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'runyard_%'")
    await connection.execute(f"SET search_path TO {schema}, public")
    yield connection
    await connection.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the server is of the whole suite."""
    for item in items:
        is_here = Path(__file__).parent in item.path.parents
        if is_here and "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.service)
