"""Queue deadlines and retries, each at its own moment."""

from __future__ import annotations

from runyard.dispatch.timekeeper import IDLE_S, Timekeeper
from runyard.model.job import JobState, Limits, Retry
from runyard.model.outcome import Outcome, OutcomeKind, ReasonCode
from runyard.policy import retry
from tests.dispatch.conftest import Yard
from tests.dispatch.test_pool_dispatcher import FAILED
from tests.factories import a_job, a_spec


async def test_a_job_past_its_queue_deadline_times_out_and_says_which_clock(yard: Yard) -> None:
    keeper = Timekeeper(ledger=yard.ledger, clock=yard.clock)
    uid = await yard.submit(limits=Limits(queue_s=30.0))
    assert 0 < await keeper.tick() <= IDLE_S
    yard.clock.time += 29
    await keeper.tick()
    assert (await yard.reaches(uid, JobState.QUEUED)).reason is None
    yard.clock.time += 2
    await keeper.tick()
    job = await yard.reaches(uid, JobState.TIMED_OUT)
    assert job.reason is not None
    assert job.reason.code is ReasonCode.QUEUE_TIMEOUT


async def test_a_claimed_job_has_no_queue_deadline_any_more(yard: Yard) -> None:
    keeper = Timekeeper(ledger=yard.ledger, clock=yard.clock)
    yard.start_owner()
    uid = await yard.submit(limits=Limits(queue_s=30.0))
    await yard.reaches(uid, JobState.RUNNING)
    yard.clock.time += 100
    await keeper.tick()
    await yard.reaches(uid, JobState.RUNNING)


async def test_a_retry_becomes_ready_when_its_backoff_is_over(yard: Yard) -> None:
    keeper = Timekeeper(ledger=yard.ledger, clock=yard.clock)
    yard.start_owner()
    uid = await yard.submit(retry=Retry(failure=1))
    yard.world.end(await yard.place_of(uid), FAILED)
    job = await yard.reaches(uid, JobState.QUEUED)
    while not job.attempts:
        job = await yard.reaches(uid, JobState.QUEUED)
    assert job.not_before is not None
    yard.clock.time = job.not_before + 0.001
    await keeper.tick()
    await yard.reaches(uid, JobState.RUNNING)


async def test_a_clock_that_jumps_back_ends_nothing_early_and_loses_nothing(yard: Yard) -> None:
    keeper = Timekeeper(ledger=yard.ledger, clock=yard.clock)
    uid = await yard.submit(limits=Limits(queue_s=30.0))
    yard.clock.time -= 86_400
    await keeper.tick()
    await yard.reaches(uid, JobState.QUEUED)
    yard.clock.time += 86_400 + 31
    await keeper.tick()
    await yard.reaches(uid, JobState.TIMED_OUT)


def test_a_timed_out_attempt_is_final_whatever_the_retries() -> None:
    outcome = Outcome(kind=OutcomeKind.TIMED_OUT)
    verdict = retry.decide(a_job(spec=a_spec(retry=Retry(failure=3, infrastructure=3))), outcome, 0.0)
    assert verdict.state is JobState.TIMED_OUT  # type: ignore[union-attr]
