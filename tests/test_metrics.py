"""What /metrics says of the process itself; of queues and pools it says what the ledger does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Ledger
from runyard.metrics import render_metrics
from tests.contracts.ledger.world import ManualClock, World
from tests.journeys.holdings import metric


@pytest.fixture
async def ledger() -> AsyncIterator[Ledger]:
    ledger = create_ledger("sqlite://:memory:", clock=ManualClock(), is_threaded=False)
    await ledger.open()
    yield ledger
    await ledger.close()


async def test_a_task_that_does_not_end_is_counted(ledger: Ledger) -> None:
    before = metric((await render_metrics(ledger)).decode(), "runyard_process_tasks")
    waiting = asyncio.create_task(asyncio.Event().wait())
    after = metric((await render_metrics(ledger)).decode(), "runyard_process_tasks")
    waiting.cancel()
    assert after == before + 1


async def test_a_turn_of_the_loop_that_was_blocked_is_seen(ledger: Ledger) -> None:
    loop = asyncio.get_running_loop()

    def block() -> None:
        began = loop.time()
        while loop.time() < began + 0.05:
            pass

    loop.call_soon(block)
    text = (await render_metrics(ledger)).decode()
    assert metric(text, "runyard_process_loop_turn_seconds") >= 0.05


async def test_queues_and_pools_are_told_as_the_ledger_counts_them(ledger: Ledger) -> None:
    world = World(ledger, ManualClock())
    await world.own("local", slots=3)
    await world.submit_many(2)
    [_] = await world.claim(1)
    text = (await render_metrics(ledger)).decode()
    assert metric(text, 'runyard_queue_jobs{queue="default",state="queued"}') == 1
    assert metric(text, 'runyard_pool_slots{pool="local",use="starting"}') == 1
    assert metric(text, 'runyard_pool_slots{pool="local",use="idle"}') == 2
