"""The SQLite adapter's own parts, below the port."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.ledger.migrations import list_migrations
from runyard.ledger.sqlite.connection import connect_writer
from runyard.ledger.sqlite.migrating import migrate
from runyard.ledger.sqlite.writer import Writer
from runyard.ledger.subscriptions import Hub
from tests.contracts.ledger.world import ManualClock


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


@pytest.fixture
def connection(path: str) -> sqlite3.Connection:
    """A migrated database; whoever takes it closes it."""
    connection = connect_writer(path)
    migrate(connection, list_migrations("sqlite"), now=0.0, where=path)
    return connection


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
async def writer(connection: sqlite3.Connection, path: str, hub: Hub) -> AsyncIterator[Writer]:
    writer = Writer(connection, path=path, clock=ManualClock(), hub=hub)
    yield writer
    writer.close()
