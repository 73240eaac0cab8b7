"""The owner of a pool: what it does with jobs, users' wishes, misbehaving places and its own death."""

from __future__ import annotations

import asyncio

import pytest

from runyard.model.attempt import AttemptKey
from runyard.model.errors import InvalidRequest, LedgerUnavailable, NoCapacity, Unreachable
from runyard.model.job import JobState, Retry
from runyard.model.operation import OperationKind
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, lost, succeeded
from runyard.model.pool import WaitCode, never, soon
from runyard.policy.explain import explain
from runyard.testing.scripted_provider import ScriptedProvider
from tests.dispatch.conftest import Yard

FAILED = Outcome(kind=OutcomeKind.FAILED, exit_code=1, reason=Reason(code=ReasonCode.EXIT, message="exit 1"))


async def test_a_submitted_job_is_run_and_its_outcome_accepted(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    yard.world.end(await yard.place_of(uid), succeeded())
    job = await yard.reaches(uid, JobState.SUCCEEDED)
    assert job.attempts == 1


async def test_an_outcome_is_not_accepted_before_what_it_tells_of_is_there(yard: Yard) -> None:
    asked, arrived = asyncio.Event(), asyncio.Event()

    async def before_settle(key: AttemptKey) -> None:
        asked.set()
        await arrived.wait()

    yard.start_owner(before_settle=before_settle)
    uid = await yard.submit()
    yard.world.end(await yard.place_of(uid), succeeded())
    await asyncio.wait_for(asked.wait(), 10)
    assert not (await yard.reaches(uid, *JobState)).state.is_final
    arrived.set()
    await yard.reaches(uid, JobState.SUCCEEDED)


async def test_a_running_job_is_seen_running(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)


async def test_no_more_attempts_run_than_the_pool_has_slots(yard: Yard) -> None:
    yard.start_owner()
    uids = [await yard.submit() for _ in range(6)]
    for uid in uids[:4]:
        await yard.reaches(uid, JobState.RUNNING)
    assert len(yard.world.running) == 4
    yard.world.end(AttemptKey(uids[0], 1), succeeded())
    await yard.reaches(uids[4], JobState.RUNNING)


async def test_a_failed_attempt_is_tried_again_when_the_user_asked(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit(retry=Retry(failure=1))
    yard.world.end(await yard.place_of(uid), FAILED)
    job = await yard.reaches(uid, JobState.QUEUED)
    assert job.failures == 1
    yard.clock.time += 10
    await yard.ledger.promote_due(limit=10)
    yard.world.end(await yard.place_of(uid, 2), succeeded())
    assert (await yard.reaches(uid, JobState.SUCCEEDED)).attempts == 2


async def test_a_crashed_owners_attempts_are_adopted_and_start_only_once(yard: Yard) -> None:
    yard.start_owner()
    uids = [await yard.submit() for _ in range(3)]
    for uid in uids:
        await yard.reaches(uid, JobState.RUNNING)
    await yard.stop_owners()
    yard.world.end(AttemptKey(uids[0], 1), succeeded())  # while nobody watches
    yard.clock.time += 100
    yard.start_owner("service-2")
    await yard.reaches(uids[0], JobState.SUCCEEDED)
    for uid in uids[1:]:
        yard.world.end(AttemptKey(uid, 1), succeeded())
        await yard.reaches(uid, JobState.SUCCEEDED)
    assert set(yard.world.starts.values()) == {1}


async def test_a_second_owner_waits_until_the_lease_is_over(yard: Yard) -> None:
    yard.start_owner("service-1")
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    assert await yard.ledger.acquire_pool("local", owner="service-2", lease_s=15) is None


async def test_a_running_job_is_canceled_at_its_place(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    assert (await yard.ledger.request_cancel(uid)).state is JobState.CANCELING
    await yard.reaches(uid, JobState.CANCELED)


async def test_a_cancel_survives_the_crash_that_follows_it(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    await yard.stop_owners()
    await yard.ledger.request_cancel(uid)
    yard.clock.time += 100
    yard.start_owner("service-2")
    await yard.reaches(uid, JobState.CANCELED)


async def test_a_stop_that_the_place_does_not_answer_is_asked_again(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world)
    provider.stop_errors = [Unreachable("no answer")]
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    await yard.ledger.request_cancel(uid)
    await yard.reaches(uid, JobState.CANCELED)


async def test_a_place_that_does_not_answer_is_asked_again_and_starts_nothing_twice(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world)
    provider.run_errors_after_start = [Unreachable("the reply was lost"), Unreachable("again")]
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    yard.world.end(AttemptKey(uid, 1), succeeded())
    job = await yard.reaches(uid, JobState.SUCCEEDED)
    assert job.attempts == 1
    assert yard.world.starts == {AttemptKey(uid, 1).resource_name: 1}


async def test_a_bug_in_a_provider_orphans_no_attempt(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world)
    provider.run_errors_after_start = [KeyError("bug")]
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    yard.world.end(AttemptKey(uid, 1), succeeded())
    await yard.reaches(uid, JobState.SUCCEEDED)


async def test_a_refused_launch_does_not_cost_an_attempt_of_the_users_retries(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world)
    provider.run_errors = [NoCapacity("no machine")]
    yard.start_owner(provider=provider)
    uid = await yard.submit(retry=Retry(infrastructure=0))
    job = await yard.reaches(uid, JobState.QUEUED)
    while not job.attempts:
        job = await yard.reaches(uid, JobState.QUEUED)
    assert (job.infrastructure_failures, job.unseen_tries) == (0, 1)
    yard.clock.time += 10
    await yard.ledger.promote_due(limit=10)
    yard.world.end(await yard.place_of(uid, 2), succeeded())
    await yard.reaches(uid, JobState.SUCCEEDED)


async def test_a_job_that_can_never_run_at_a_place_is_refused(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world)
    provider.run_errors = [InvalidRequest("no such shape")]
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    job = await yard.reaches(uid, JobState.REFUSED)
    assert job.reason is not None
    assert job.reason.message == "no such shape"


async def test_a_lost_attempt_is_tried_again_and_the_loss_recorded(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    yard.world.end(await yard.place_of(uid), lost("host died", was_seen=True))
    job = await yard.reaches(uid, JobState.QUEUED)
    assert job.infrastructure_failures == 1
    (attempt,) = await yard.ledger.list_attempts(uid)
    assert attempt.outcome is not None
    assert attempt.outcome.kind is OutcomeKind.LOST


async def test_a_place_that_answers_never_gets_nothing_and_the_user_reads_why(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world, answer=never("no such arch here"))
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    while True:
        facts = await yard.ledger.wait_facts(uid)
        assert facts is not None
        (reason,) = explain(facts)
        if reason.code is WaitCode.NO_POOL:
            break
        await yard.reaches(uid, JobState.QUEUED)
    assert reason.message == "no such arch here"
    assert yard.world.places == {}


async def test_a_place_that_is_soon_ready_is_waited_for(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world, answer=soon(WaitCode.PLACE_STARTING, "a machine boots", 30.0))
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    while not provider.demands:
        await yard.reaches(uid, JobState.QUEUED)
    assert yard.world.places == {}
    provider.answer = ScriptedProvider(yard.world).answer
    await yard.reaches(uid, JobState.RUNNING)  # by the timer behind the wake-ups


async def test_an_unavailable_ledger_loses_no_outcome(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.start_owner()
    uid = await yard.submit()
    key = await yard.place_of(uid)
    await yard.reaches(uid, JobState.RUNNING)
    settle = yard.ledger.settle
    failures = [LedgerUnavailable("disk full")]

    async def failing_once(*args: object, **kwargs: object) -> object:
        if failures:
            raise failures.pop()
        return await settle(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(yard.ledger, "settle", failing_once)
    yard.world.end(key, succeeded())
    await yard.reaches(uid, JobState.SUCCEEDED)


async def test_an_owner_that_was_overtaken_changes_nothing_any_more(yard: Yard) -> None:
    yard.start_owner("service-1")
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    yard.clock.time += 100  # its lease is over, and it does not know yet
    fence = await yard.ledger.acquire_pool("local", owner="service-2", lease_s=1000)
    assert fence is not None
    yard.world.end(AttemptKey(uid, 1), succeeded())
    (claimed,) = await yard.ledger.list_unfinished(fence)
    assert claimed.attempt.outcome is None
    assert (await yard.ledger.settle(fence, claimed.attempt.key, FAILED, decide=_final)) is not None
    assert (await yard.reaches(uid, JobState.FAILED)).state is JobState.FAILED


def _final(job: object, outcome: Outcome, now: float) -> object:
    from runyard.policy.retry import decide

    return decide(job, outcome, now)  # type: ignore[arg-type]


async def test_a_drained_pool_takes_nothing_new(yard: Yard) -> None:
    dispatcher = yard.start_owner()
    first = await yard.submit()
    await yard.reaches(first, JobState.RUNNING)
    dispatcher.drain()
    second = await yard.submit()
    yard.world.end(AttemptKey(first, 1), succeeded())
    await dispatcher.drained()
    assert (await yard.reaches(first, JobState.SUCCEEDED)).attempts == 1
    assert (await yard.reaches(second, JobState.QUEUED)).attempts == 0


async def test_a_paused_pool_takes_nothing_until_it_is_resumed(yard: Yard) -> None:
    await yard.ledger.set_pool_paused("local", is_paused=True)
    yard.start_owner()
    uid = await yard.submit()
    facts = await yard.ledger.wait_facts(uid)
    assert facts is not None
    assert [reason.code for reason in explain(facts)] == [WaitCode.POOL_PAUSED]
    await yard.ledger.set_pool_paused("local", is_paused=False)
    await yard.reaches(uid, JobState.RUNNING)


async def test_what_an_ended_attempt_left_is_destroyed(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    yard.world.end(await yard.place_of(uid), succeeded())
    await yard.reaches(uid, JobState.SUCCEEDED)
    await yard.stop_owners()
    assert yard.world.places == {}


async def test_an_operators_check_is_answered_by_the_owner(yard: Yard) -> None:
    yard.start_owner()
    asked = await yard.ledger.request_operation("local", OperationKind.CHECK_POOL, {})
    subscription = yard.ledger.subscribe("events")
    while (operation := await yard.ledger.get_operation(asked.id)) and operation.result is None:
        await subscription.wait(0.05)
    subscription.close()
    assert operation is not None
    assert operation.result is not None
    assert operation.result["ok"] is True


async def test_an_operation_that_fails_is_answered_and_keeps_nobody_from_running(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world)
    provider.list_errors = [RecursionError("a deep tree")]
    yard.start_owner(provider=provider)
    asked = await yard.ledger.request_operation("local", OperationKind.PRUNE, {"dry_run": False})
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    operation = await yard.ledger.get_operation(asked.id)
    assert operation is not None
    assert operation.result is not None
    assert operation.result["ok"] is False
