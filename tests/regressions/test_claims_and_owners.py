"""Incidents of owners: crashed, doubled, paused, overtaken."""

from __future__ import annotations

import asyncio

import pytest

from runyard.dispatch.follow import CALL_DEADLINE_S
from runyard.ledger.port import ClaimRequest
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Fenced, LedgerUnavailable
from runyard.model.job import JobState
from runyard.model.operation import OperationKind
from runyard.model.outcome import succeeded
from runyard.model.pool import Budget, Fence
from runyard.model.requirements import Requirements
from runyard.policy import retry
from runyard.testing.misbehaviour import Fault, Verb
from runyard.testing.scripted_provider import ScriptedProvider
from tests.factories import GIB
from tests.regressions.conftest import Yard


async def test_1_a_crash_after_the_create_and_before_any_word_of_it_starts_nothing_twice(yard: Yard) -> None:
    yard.play(lasts_s=60.0)
    owner = yard.start_owner("service-1")
    yard.world.on_start = lambda name: owner.freeze()
    uid = await yard.submit()
    await yard.starts(uid)
    yard.world.on_start = lambda name: None
    yard.start_owner("service-2")
    await yard.reaches(uid, JobState.SUCCEEDED, within_s=120)
    assert yard.world.starts == {AttemptKey(uid, 1).resource_name: 1}


async def test_8_counts_from_an_older_snapshot_exceed_nothing(yard: Yard) -> None:
    for _ in range(8):
        await yard.submit()
    fence = await yard.ledger.acquire_pool("local", owner="service-1", lease_s=60)
    stale = ClaimRequest(
        fence=fence,
        free_slots=(0, 1, 2, 3),
        rooms={Requirements().class_key(): 100},
        budget=Budget(cpu_millis=10**6, memory_bytes=1 << 50),
    )
    assert len(await yard.ledger.claim(stale)) == 4
    assert await yard.ledger.claim(stale) == []  # it believes them free: it counted before


class LosesTheFirstClaimsAnswer:
    def __init__(self, ledger) -> None:
        self._ledger = ledger
        self.losses = 1

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    async def claim(self, request):
        claimed = await self._ledger.claim(request)
        if claimed and self.losses:
            self.losses -= 1
            raise LedgerUnavailable("the answer was lost")
        return claimed


async def test_13_a_claim_whose_answer_was_lost_is_found_and_run_once(yard: Yard) -> None:
    yard.play(lasts_s=1.0)
    uid = await yard.submit()
    yard.start_owner(ledger=LosesTheFirstClaimsAnswer(yard.ledger))
    job = await yard.reaches(uid, JobState.SUCCEEDED, within_s=30)
    assert job.attempts == 1


async def test_13_what_an_unanswered_claim_took_counts_before_the_next_claim(yard: Yard) -> None:
    half = Requirements(cpu_millis=2000, memory_bytes=GIB)  # of the pool's four cores
    for _ in range(4):
        await yard.submit(requirements=half)
    yard.start_owner(ledger=LosesTheFirstClaimsAnswer(yard.ledger))
    await asyncio.sleep(0.5)
    await yard.submit(requirements=half)  # wakes the owner before its timer
    await asyncio.sleep(10)
    assert len(yard.world.running) == 2


async def test_14_two_services_serve_one_pool_and_only_one_acts(yard: Yard) -> None:
    yard.play(lasts_s=5.0)
    yard.start_owner("service-1")
    yard.start_owner("service-2")
    uids = [await yard.submit() for _ in range(12)]
    for uid in uids:
        assert (await yard.reaches(uid, JobState.SUCCEEDED)).attempts == 1
    assert set(yard.world.starts.values()) == {1}
    assert (await yard.ledger.get_pool("local")).epoch == 1


async def test_22_a_result_that_comes_after_the_loss_was_settled_changes_nothing(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    key = await yard.starts(uid)
    await yard.ledger.request_operation("local", OperationKind.FORGET_POOL, {})
    await yard.reaches(uid, JobState.QUEUED)
    (before,) = await yard.ledger.list_attempts(uid)
    late = await yard.ledger.settle(Fence("local", 1), key, succeeded(), decide=retry.decide)
    assert late.state is JobState.QUEUED
    assert await yard.ledger.list_attempts(uid) == [before]


async def test_23_an_owner_that_was_paused_past_its_lease_changes_nothing_afterwards(yard: Yard) -> None:
    yard.play(lasts_s=20.0)
    paused = yard.start_owner("service-1")
    uid = await yard.submit()
    await yard.starts(uid)
    paused.freeze()
    yard.start_owner("service-2")
    await yard.reaches(uid, JobState.SUCCEEDED)
    before = await yard.job(uid)
    paused.thaw()
    await asyncio.sleep(120)
    assert await yard.job(uid) == before
    assert (await yard.ledger.get_pool("local")).owner == "service-2"
    assert yard.world.starts == {AttemptKey(uid, 1).resource_name: 1}


async def test_23_a_write_of_an_old_epoch_is_refused(yard: Yard) -> None:
    old = await yard.ledger.acquire_pool("local", owner="service-1", lease_s=15)
    yard.clock.offset_s += 20
    await yard.ledger.acquire_pool("local", owner="service-2", lease_s=15)
    with pytest.raises(Fenced):
        await yard.ledger.list_unfinished(old)


async def test_23_a_create_on_its_way_since_before_a_takeover_collides_with_the_tombstone(yard: Yard) -> None:
    yard.play(lasts_s=0.1)
    old = ScriptedProvider(yard.world, is_far=True)
    old.faults[Verb.RUN].append(Fault(request_lag_s=25.0))
    owner = yard.start_owner("service-1", provider=old)
    uid = await yard.submit()
    await asyncio.sleep(0.5)
    owner.freeze()
    yard.start_owner("service-2")
    await yard.reaches(uid, JobState.SUCCEEDED, within_s=24)
    await asyncio.sleep(60)
    assert yard.world.starts == {AttemptKey(uid, 1).resource_name: 1}


class PausesBeforeItCreates:
    """An owner's process that is stopped inside run_job, after every check of its lease."""

    def __init__(self, provider: ScriptedProvider, seconds: float) -> None:
        self._provider = provider
        self._seconds = seconds

    def __getattr__(self, name):
        return getattr(self._provider, name)

    async def run_job(self, attempt, context):
        await asyncio.sleep(self._seconds)
        return await self._provider.run_job(attempt, context)


async def test_23_an_owner_that_was_paused_inside_run_job_for_an_hour_starts_nothing(yard: Yard) -> None:
    yard.play(lasts_s=0.1)
    slow = PausesBeforeItCreates(ScriptedProvider(yard.world, is_far=True), 3600.0)
    owner = yard.start_owner("service-1", provider=slow)
    uid = await yard.submit()
    await asyncio.sleep(0.5)
    owner.freeze()
    yard.start_owner("service-2")
    await yard.reaches(uid, JobState.SUCCEEDED)
    await asyncio.sleep(3600 + CALL_DEADLINE_S)
    owner.thaw()
    await asyncio.sleep(1)
    assert yard.world.starts == {AttemptKey(uid, 1).resource_name: 1}


async def test_28_who_stops_lets_go_at_once_and_leaves_everything_running(yard: Yard) -> None:
    yard.start_owner("service-1")
    uid = await yard.submit()
    await yard.starts(uid)
    await yard.close()
    assert (await yard.ledger.get_pool("local")).owner is None
    assert yard.world.running == [AttemptKey(uid, 1)]


async def test_28_who_stops_does_not_wait_for_a_place_that_does_not_answer(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world, is_far=True)
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    await yard.starts(uid)
    provider.crash()
    await yard.ledger.request_cancel(uid)
    await asyncio.sleep(5)
    async with asyncio.timeout(10):
        await yard.close()


async def test_32_a_restart_destroys_nothing_that_runs(yard: Yard) -> None:
    yard.start_owner("service-1").freeze()
    yard.play(lasts_s=1000.0)
    owner = yard.start_owner("service-2")
    uids = [await yard.submit() for _ in range(3)]
    for uid in uids:
        await yard.starts(uid)
    for life in range(3):
        owner.freeze()
        owner = yard.start_owner(f"service-{life + 3}")
        await asyncio.sleep(130)
    for uid in uids:
        assert (await yard.reaches(uid, JobState.SUCCEEDED)).attempts == 1
    assert set(yard.world.starts.values()) == {1}
