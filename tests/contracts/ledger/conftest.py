"""One suite, every database: a backend is a line here, and each test runs on all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Ledger
from tests.contracts.ledger.world import ManualClock, World

Backend = Callable[[Path, ManualClock], Ledger]


def postgresql(folder: Path, clock: ManualClock) -> Ledger:
    """Imported only by the tests that run on it: the driver is an extra, the server a package of the system."""
    from runyard.ledger.postgresql.ledger import PostgresqlLedger
    from tests.postgres_server import shared_server

    return PostgresqlLedger(shared_server().clean_database(), clock=clock)


BACKENDS: dict[str, Backend] = {
    "sqlite": lambda folder, clock: create_ledger(f"sqlite://{folder}/ledger.db", clock=clock),
    "sqlite-inline": lambda folder, clock: create_ledger("sqlite://:memory:", clock=clock, is_threaded=False),
    "sqlite-memory": lambda folder, clock: create_ledger("sqlite://:memory:", clock=clock),
    "postgresql": postgresql,
}
NEEDS_SERVICE = {"postgresql"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.service if name in NEEDS_SERVICE else ()) for name in BACKENDS
    ]
)
async def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Ledger]:
    ledger = BACKENDS[request.param](tmp_path, clock)
    await ledger.open()
    yield ledger
    await ledger.close()


@pytest.fixture
def world(ledger: Ledger, clock: ManualClock) -> World:
    return World(ledger, clock)
