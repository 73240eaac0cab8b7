"""The history that services write: what it shows after crashes, doubled writers, lost replies and set clocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from runyard.dispatch.historian import Historian
from runyard.dispatch.retention import HISTORY_KEPT_S
from runyard.dispatch.telemetry import EndedAttempt
from runyard.ledger.port import Ledger
from runyard.model.errors import LedgerUnavailable
from runyard.model.history import ALL, BUCKET_S, SIGN_OF_LIFE_S, HistoryRow, HistorySum, Subject
from runyard.model.job import JobState
from runyard.model.outcome import succeeded
from runyard.model.queue import QueueSettings
from tests.dispatch.conftest import Yard
from tests.dispatch.test_retention import Shelf, retention

BEGIN = 1_000_005
"""The first bucket after the yard's clock."""


def an_end(pool: str = "local", step_s: float = 2.0, queue: str = "default") -> EndedAttempt:
    return EndedAttempt(
        pool=pool,
        queue=queue,
        outcome=succeeded(),
        state=JobState.SUCCEEDED,
        phases={"claimed": 0.5, "step": step_s},
        start_s=0.5,
    )


def a_historian(yard: Yard, writer: str = "one", ledger: Ledger | None = None) -> Historian:
    yard.clock.time = max(yard.clock.time, float(BEGIN))
    return Historian(ledger=ledger or yard.ledger, writer=writer)


async def read(yard: Yard, subject: Subject, name: str = ALL) -> list[HistorySum]:
    return await yard.ledger.read_history(subject, name, begin=0, end=BEGIN * 2, step_s=BUCKET_S)


async def gauges(yard: Yard, figure: str = "queued") -> list[tuple[int, float]]:
    """(buckets since BEGIN, value) over all queues."""
    found = await read(yard, Subject.QUEUE, ALL)
    return [((one.at - BEGIN) // BUCKET_S, one.highest) for one in found if one.figure == figure]


async def ends(yard: Yard) -> list[tuple[int, float]]:
    found = await read(yard, Subject.POOL)
    return [((one.at - BEGIN) // BUCKET_S, one.amount) for one in found if one.figure.startswith("outcome:")]


class LosesReplies:
    """A ledger whose writes of history get through without an answer."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.losses = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def add_history(self, rows: Sequence[HistoryRow]) -> None:
        await self._ledger.add_history(rows)
        if self.losses:
            self.losses -= 1
            raise LedgerUnavailable("the reply was lost", cure="ask again")


async def test_what_waits_is_written_while_it_waits_and_once_when_it_does_not(yard: Yard) -> None:
    historian = a_historian(yard)
    uid = await yard.submit()
    await historian.tick()
    yard.clock.time += BUCKET_S
    await historian.tick()
    await yard.ledger.request_cancel(uid)
    for _ in range(3):
        yard.clock.time += BUCKET_S
        await historian.tick()
    assert await gauges(yard) == [(0, 1.0), (1, 1.0), (2, 0.0), (4, 0.0)]


async def test_an_idle_service_writes_a_sign_of_life_and_nothing_else(yard: Yard) -> None:
    historian = a_historian(yard)
    for _ in range(9):
        await historian.tick()
        yard.clock.time += BUCKET_S
    every = SIGN_OF_LIFE_S // BUCKET_S
    assert await gauges(yard) == [(0, 0.0), (every, 0.0), (2 * every, 0.0)]
    assert await read(yard, Subject.QUEUE, "default") == []
    assert await read(yard, Subject.POOL) == []


async def test_attempts_that_ended_are_summed_by_outcome_and_phase(yard: Yard) -> None:
    historian = a_historian(yard)
    historian.attempt_ended(an_end())
    historian.attempt_ended(an_end(step_s=4.0))
    historian.attempt_ended(an_end("other", step_s=1.0))
    await historian.tick()

    async def of(pool: str) -> dict[str, tuple[float, float]]:
        return {one.figure: (one.amount, one.seconds) for one in await read(yard, Subject.POOL, pool)}

    assert await of("local") == {"outcome:succeeded": (2, 0), "phase:claimed": (2, 1), "phase:step": (2, 6)}
    assert await of(ALL) == {"outcome:succeeded": (3, 0), "phase:claimed": (3, 1.5), "phase:step": (3, 7)}


async def test_ends_are_told_by_queue_too_of_those_in_which_most_ended(yard: Yard) -> None:
    historian = a_historian(yard)
    for number in range(101):
        for _ in range(2 if number else 1):
            historian.attempt_ended(an_end(queue=f"q{number}"))
    await historian.tick()

    async def of(queue: str) -> list[tuple[str, float]]:
        return [(one.figure, one.amount) for one in await read(yard, Subject.QUEUE, queue)]

    assert await of("q7") == [("outcome:succeeded", 2)]
    assert await of("q0") == []
    assert await ends(yard) == [(0, 201.0)]


async def test_it_says_when_the_next_bucket_ends_and_writes_none_twice(yard: Yard) -> None:
    historian = a_historian(yard)
    yard.clock.time = BEGIN + 4.0
    assert await historian.tick() == BUCKET_S - 4.0
    historian.attempt_ended(an_end())
    yard.clock.time = BEGIN + BUCKET_S - 0.25  # the timer was early
    assert await historian.tick() == 0.25
    assert await ends(yard) == []


async def test_two_services_write_one_gauge_and_both_their_counts(yard: Yard) -> None:
    one, two = a_historian(yard, "one"), a_historian(yard, "two")
    await yard.submit()
    one.attempt_ended(an_end())
    two.attempt_ended(an_end())
    await one.tick()
    await two.tick()
    assert await gauges(yard) == [(0, 1.0)]
    assert await ends(yard) == [(0, 2.0)]


async def test_who_comes_after_a_crash_adds_to_the_bucket_of_who_died(yard: Yard) -> None:
    before = a_historian(yard, "before")
    before.attempt_ended(an_end())
    await before.tick()
    before.attempt_ended(an_end())  # and it dies, with what it had not written
    after = a_historian(yard, "after")
    after.attempt_ended(an_end())
    await after.tick()
    assert await ends(yard) == [(0, 2.0)]


async def test_a_write_without_an_answer_is_repeated_and_counts_once(yard: Yard) -> None:
    ledger = LosesReplies(yard.ledger)
    historian = a_historian(yard, ledger=ledger)  # type: ignore[arg-type]
    historian.attempt_ended(an_end())
    with pytest.raises(LedgerUnavailable):
        await historian.tick()
    historian.attempt_ended(an_end())
    yard.clock.time += BUCKET_S
    await historian.tick()
    assert await ends(yard) == [(0, 1.0), (1, 1.0)]


async def test_a_clock_that_is_set_back_loses_no_count(yard: Yard) -> None:
    historian = a_historian(yard)
    for at in (0, 1, 2, 1, 2):
        yard.clock.time = BEGIN + at * BUCKET_S
        historian.attempt_ended(an_end())
        await historian.tick()
    assert await ends(yard) == [(0, 1.0), (1, 2.0), (2, 2.0)]


async def test_a_clock_that_leaps_leaves_a_gap_and_no_invented_buckets(yard: Yard) -> None:
    historian = a_historian(yard)
    await historian.tick()
    yard.clock.time += 100 * BUCKET_S
    historian.attempt_ended(an_end())
    await historian.tick()
    assert await ends(yard) == [(100, 1.0)]
    assert await gauges(yard) == [(0, 0.0), (100, 0.0)]


async def test_only_the_busiest_queues_have_figures_of_their_own(yard: Yard) -> None:
    for number in range(150):
        await yard.ledger.put_queue(QueueSettings(name=f"q{number}"))
        await yard.submit(queue=f"q{number}")
    await a_historian(yard).tick()
    found = [await read(yard, Subject.QUEUE, f"q{number}") for number in range(150)]
    assert sum(bool(rows) for rows in found) == 100
    assert await gauges(yard) == [(0, 150.0)]


async def test_history_goes_after_two_days(yard: Yard) -> None:
    historian = a_historian(yard)
    await yard.submit()
    await historian.tick()
    yard.clock.time += HISTORY_KEPT_S
    await historian.tick()
    yard.clock.time += BUCKET_S
    await retention(yard, Shelf([]), Shelf([])).sweep()
    assert [at for at, _ in await gauges(yard)] == [HISTORY_KEPT_S // BUCKET_S]
