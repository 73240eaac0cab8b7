"""The watch over queues that stand still, over a ledger with a pool whose place takes nothing."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from runyard.dispatch.progress import ProgressWatch
from runyard.model.job import JobState
from runyard.model.pool import WaitCode, soon
from runyard.policy.progress import STALLED_AFTER_S
from runyard.testing.scripted_provider import ScriptedProvider
from tests.dispatch.conftest import DEADLINE_S, Yard


async def looks(watch: ProgressWatch, count: int) -> list[tuple[str, str]]:
    with capture_logs() as lines:
        for _ in range(count):
            await watch.tick()
    return [(line["event"], line["queue"]) for line in lines]


async def test_a_stall_is_told_once_with_its_reason_and_so_is_its_end(yard: Yard) -> None:
    watch = ProgressWatch(ledger=yard.ledger)
    uid = await yard.submit()
    assert await looks(watch, 2) == []
    yard.clock.time += STALLED_AFTER_S
    with capture_logs() as lines:
        await watch.tick()
        await watch.tick()
        await watch.tick()
    [line] = lines
    assert (line["event"], line["log_level"], line["queue"]) == ("no_progress", "error", "default")
    assert line["still_s"] == STALLED_AFTER_S
    assert line["job"] == "job-1"
    assert "runyard serve" in line["why"][0], "nobody owns the pool, and the next step is said"
    yard.start_owner()
    await yard.reaches(uid, JobState.RUNNING)
    assert await looks(watch, 3) == [("progress_again", "default")]


async def test_a_second_stall_is_told_again(yard: Yard) -> None:
    watch = ProgressWatch(ledger=yard.ledger)
    for owner in ("service-1", "service-2"):
        uid = await yard.submit()
        yard.clock.time += STALLED_AFTER_S
        assert await looks(watch, 3) == [("no_progress", "default")]
        yard.start_owner(owner)
        await yard.reaches(uid, JobState.RUNNING)
        await yard.stop_owners()
        assert await looks(watch, 3) == [("progress_again", "default")]


async def test_a_queue_that_is_served_in_the_next_moment_is_not_told_of(yard: Yard) -> None:
    """A queue that was paused for an hour has an old job in the moment in which it is resumed."""
    watch = ProgressWatch(ledger=yard.ledger)
    uid = await yard.submit()
    yard.clock.time += STALLED_AFTER_S
    assert await looks(watch, 1) == []
    yard.start_owner()
    await yard.reaches(uid, JobState.RUNNING)
    assert await looks(watch, 3) == []


async def test_a_place_that_takes_nothing_is_the_reason_that_is_told(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world)
    provider.answer = soon(WaitCode.QUOTA, "the quota of 4 cores is used up")
    uid = await yard.submit()
    yard.clock.time += STALLED_AFTER_S
    yard.start_owner(provider=provider)
    async with asyncio.timeout(DEADLINE_S):
        while not await is_answered(yard, uid):
            pass
    watch = ProgressWatch(ledger=yard.ledger)
    with capture_logs() as lines:
        await watch.tick()
        await watch.tick()
    told = [line["why"] for line in lines if line["event"] == "no_progress"]
    assert told == [["the quota of 4 cores is used up"]]


async def is_answered(yard: Yard, uid: str) -> bool:
    facts = await yard.ledger.wait_facts(uid)
    assert facts is not None
    return bool(facts.availability)
