"""One suite, every database: a backend is a line here, and each test runs on all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Ledger
from tests.contracts.ledger.world import ManualClock, World

Backend = Callable[[Path, ManualClock], Ledger]

BACKENDS: dict[str, Backend] = {
    "sqlite": lambda folder, clock: create_ledger(f"sqlite://{folder}/ledger.db", clock=clock),
    "sqlite-inline": lambda folder, clock: create_ledger("sqlite://:memory:", clock=clock, is_threaded=False),
    "sqlite-memory": lambda folder, clock: create_ledger("sqlite://:memory:", clock=clock),
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=BACKENDS)
async def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Ledger]:
    ledger = BACKENDS[request.param](tmp_path, clock)
    await ledger.open()
    yield ledger
    await ledger.close()


@pytest.fixture
def world(ledger: Ledger, clock: ManualClock) -> World:
    return World(ledger, clock)
