"""What an attempt tells reaches the ledger soon, seldom, and not at all where nobody had the time to look."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from runyard.dispatch.context import STATUS_DELAY_S, AttemptContext
from runyard.dispatch.ownership import PoolLease
from runyard.model.attempt import AttemptKey, Progress
from runyard.model.errors import LedgerUnavailable
from runyard.model.pool import Fence
from runyard.testing.conformance import virtual_time

KEY = AttemptKey("a" * 16, 1)


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time


class Lease:
    fence = Fence("local", 1)

    def now(self) -> float:
        return asyncio.get_running_loop().time()


class WritingLedger:
    """Only counts what is written."""

    def __init__(self) -> None:
        self.statuses: list[tuple[float, dict[str, str], Progress | None]] = []
        self.phases: list[dict[str, float]] = []
        self.failures = 0

    async def record_status(self, fence: Fence, key: AttemptKey, *, placement: Any, progress: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise LedgerUnavailable("gone", cure="wait")
        self.statuses.append((asyncio.get_running_loop().time(), dict(placement), progress))

    async def record_phases(self, fence: Fence, key: AttemptKey, phases: Any) -> None:
        self.phases.append(dict(phases))


@pytest.fixture
def ledger() -> WritingLedger:
    return WritingLedger()


@pytest.fixture
async def context(ledger: WritingLedger, tmp_path: Path) -> AsyncIterator[AttemptContext]:
    made = AttemptContext(
        ledger=cast(Any, ledger),
        lease=cast(PoolLease, Lease()),
        key=KEY,
        log_directory=tmp_path,
        log_bytes_max=1,
        artifact_directory=tmp_path,
    )
    yield made
    await made.close()


async def test_a_fast_attempt_costs_no_write_for_what_it_told(
    context: AttemptContext, ledger: WritingLedger
) -> None:
    await context.record_placement({"machine": "m"})
    await context.record_progress("pulling", fraction=0.5)
    await asyncio.sleep(STATUS_DELAY_S / 2)
    await context.close()
    await asyncio.sleep(10)
    assert ledger.statuses == []
    assert context.placement == {"machine": "m"}


async def test_a_chatty_place_is_written_once_a_second_and_its_latest_word_wins(
    context: AttemptContext, ledger: WritingLedger
) -> None:
    for percent in range(101):
        await context.record_progress("pulling", fraction=percent / 100)
        await asyncio.sleep(0.05)
    await asyncio.sleep(5)
    moments = [at for at, _, _ in ledger.statuses]
    assert all(later - earlier > 0.999 for earlier, later in itertools.pairwise(moments))
    assert 5 <= len(moments) <= 7
    last = ledger.statuses[-1][2]
    assert last is not None
    assert last.fraction == 1.0


async def test_what_is_told_after_it_runs_is_no_progress(
    context: AttemptContext, ledger: WritingLedger
) -> None:
    await context.record_progress("pulling")
    await context.record_phase("running", 1.0)
    await context.record_progress("pulling still")
    await asyncio.sleep(5)
    assert [progress for _, _, progress in ledger.statuses] == [None]
    assert ledger.phases == [{"running": 1.0}]


async def test_an_unavailable_ledger_is_told_later(context: AttemptContext, ledger: WritingLedger) -> None:
    ledger.failures = 3
    await context.record_placement({"machine": "m"})
    await asyncio.sleep(30)
    assert [placement for _, placement, _ in ledger.statuses] == [{"machine": "m"}]


async def test_the_same_placement_again_is_not_written_again(
    context: AttemptContext, ledger: WritingLedger
) -> None:
    for _ in range(3):
        await context.record_placement({"machine": "m"})
        await asyncio.sleep(5)
    assert len(ledger.statuses) == 1
