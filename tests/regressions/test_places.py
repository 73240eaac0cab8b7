"""Incidents of places: creates, listings, refusals, silence."""

from __future__ import annotations

import asyncio

import pytest

from runyard.dispatch.operations import OPERATION_DEADLINE_S
from runyard.dispatch.sweep import Sweep
from runyard.model.attempt import AttemptKey
from runyard.model.errors import InvalidRequest, NoCapacity, ProviderDenied, Throttled, Unreachable
from runyard.model.job import JobState, Retry
from runyard.model.operation import OperationKind
from runyard.model.outcome import ReasonCode
from runyard.model.pool import Fence
from runyard.policy.retry import UNSEEN_TRIES_MAX
from runyard.providers.port import AttemptRequest
from runyard.testing.misbehaviour import Fault, Verb, lost_reply, lost_request, refusal
from runyard.testing.scripted_provider import Place, ScriptedProvider
from tests.factories import a_spec
from tests.regressions.conftest import Yard


async def test_2_a_create_that_reported_an_error_is_found_and_not_repeated(yard: Yard) -> None:
    yard.play(lasts_s=1.0)
    provider = ScriptedProvider(yard.world, is_far=True)
    provider.faults[Verb.RUN] += [lost_reply(Unreachable("timed out"))] * 3
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    job = await yard.reaches(uid, JobState.SUCCEEDED)
    assert job.attempts == 1
    assert yard.world.starts == {AttemptKey(uid, 1).resource_name: 1}


async def test_3_a_listing_that_lags_behind_the_create_condemns_nothing(yard: Yard) -> None:
    yard.play(lasts_s=500.0)
    yard.world.listing_lag_s = 400.0
    yard.start_owner()
    uid = await yard.submit()
    assert (await yard.reaches(uid, JobState.SUCCEEDED)).attempts == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(error=Unreachable("timed out"), reaches=False),
        Fault(forgets=1.0, admits=False),
        Fault(forgets=1.0),
    ],
    ids=["timed out", "empty", "partial"],
)
async def test_5_a_listing_that_failed_or_is_empty_condemns_nothing(yard: Yard, fault: Fault) -> None:
    yard.play(lasts_s=500.0)
    provider = ScriptedProvider(yard.world, is_far=True)
    provider.faults[Verb.LIST] += [fault] * 100
    yard.start_owner(provider=provider)
    uids = [await yard.submit() for _ in range(3)]
    for uid in uids:
        assert (await yard.reaches(uid, JobState.SUCCEEDED)).attempts == 1
    assert set(yard.world.starts.values()) == {1}


class ReadBeforeTheClaim:
    """The rows of living attempts as they were before the claim, the attempt as it is."""

    def __init__(self, ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    async def list_unfinished(self, fence):
        return []


async def test_6_what_became_busy_after_the_look_is_not_destroyed(yard: Yard) -> None:
    owner = yard.start_owner()
    uid = await yard.submit()
    key = await yard.starts(uid)
    await asyncio.sleep(1000)
    owner.freeze()
    provider = ScriptedProvider(yard.world)
    fence = Fence("local", 1)
    sweep = Sweep(ledger=ReadBeforeTheClaim(yard.ledger), provider=provider, clock=yard.clock)
    for _ in range(3):
        await sweep.run(fence)
    assert yard.world.running == [key]


async def test_9_early_failures_of_every_kind_leave_no_counter_behind(yard: Yard) -> None:
    yard.play(lasts_s=1.0)
    provider = ScriptedProvider(yard.world)
    provider.run_errors = [
        KeyError("bug"),
        NoCapacity("none"),
        ProviderDenied("denied"),
        Throttled("x", after_s=1),
    ]
    provider.run_errors_after_start = [RuntimeError("bug"), Unreachable("?")]
    yard.start_owner(provider=provider)
    uids = [await yard.submit() for _ in range(8)]
    await asyncio.sleep(60)
    await yard.ledger.promote_due(limit=100)
    for uid in uids:
        await yard.reaches(uid, JobState.SUCCEEDED)
    pool = await yard.ledger.get_pool("local")
    (queue,) = await yard.ledger.list_queues()
    assert (pool.starting, pool.running, queue.starting, queue.running, queue.queued) == (0, 0, 0, 0, 0)
    yard.play()
    again = [await yard.submit() for _ in range(4)]
    for uid in again:
        await yard.starts(uid)  # all four slots are there


async def test_10_a_cancel_that_overtakes_the_start_starts_nothing(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world, is_far=True)
    provider.faults[Verb.RUN] += [lost_request(Unreachable("no route"))] * 3
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    await yard.reaches(uid, JobState.STARTING)
    await yard.ledger.request_cancel(uid)
    await yard.reaches(uid, JobState.CANCELED)
    assert yard.world.starts == {}


async def test_19_a_job_that_cannot_be_started_starves_nobody_and_does_not_loop(yard: Yard) -> None:
    yard.play(lasts_s=1.0)
    provider = ScriptedProvider(yard.world, is_far=True)
    calls: list[str] = []

    def misbehave(verb: Verb, name: str) -> Fault | None:
        if verb is Verb.RUN and name.startswith(f"runyard-{doomed}"):
            calls.append(name)
            return refusal(NoCapacity("none of this shape"))
        return None

    doomed = await yard.submit()
    provider.misbehave = misbehave
    yard.start_owner(provider=provider)
    others = [await yard.submit() for _ in range(5)]
    for uid in others:
        await yard.reaches(uid, JobState.SUCCEEDED, within_s=30)
    while (await yard.job(doomed)).state is not JobState.REFUSED:
        await asyncio.sleep(1)
        await yard.ledger.promote_due(limit=10)
    assert len(calls) == UNSEEN_TRIES_MAX
    reason = (await yard.job(doomed)).reason
    assert reason.code is ReasonCode.PROVIDER
    assert "none of this shape" in reason.message


@pytest.mark.parametrize("text", ["404 instance not found", "does not exist", "no such attempt"])
async def test_20_missing_is_told_by_type_and_never_by_words(yard: Yard, text: str) -> None:
    yard.play(lasts_s=30.0)
    provider = ScriptedProvider(yard.world, is_far=True)
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    await yard.starts(uid)
    provider.faults[Verb.RUN] += [
        lost_request(Unreachable(text)),
        Fault(error=RuntimeError(text), reaches=False),
    ]
    provider.crash()
    await asyncio.sleep(3)
    provider.recover()
    job = await yard.reaches(uid, JobState.SUCCEEDED)
    assert (job.attempts, job.infrastructure_failures) == (1, 0)


async def test_24_a_burst_that_meets_the_limit_keeps_what_was_had_and_tries_the_rest_later(
    yard: Yard,
) -> None:
    yard.play(lasts_s=5.0)
    provider = ScriptedProvider(yard.world, is_far=True)
    provider.faults[Verb.RUN] += [Fault(), Fault(), *[refusal(Throttled("slow down", after_s=1.0))] * 2]
    yard.start_owner(provider=provider)
    uids = [await yard.submit(retry=Retry(infrastructure=0)) for _ in range(4)]
    await asyncio.sleep(1)
    assert len(yard.world.running) == 2
    await asyncio.sleep(4)
    await yard.ledger.promote_due(limit=10)
    jobs = [await yard.reaches(uid, JobState.SUCCEEDED) for uid in uids]
    assert sorted(job.unseen_tries for job in jobs) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "error", [NoCapacity("none"), Throttled("slow", after_s=1.0), ProviderDenied("the key expired")]
)
async def test_25_a_transient_refusal_ends_no_job(yard: Yard, error) -> None:
    yard.play(lasts_s=1.0)
    provider = ScriptedProvider(yard.world, is_far=True)
    provider.faults[Verb.RUN].append(refusal(error))
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    await asyncio.sleep(5)
    await yard.ledger.promote_due(limit=10)
    job = await yard.reaches(uid, JobState.SUCCEEDED)
    assert (job.unseen_tries, job.infrastructure_failures) == (1, 0)


async def test_25_a_refusal_of_an_adopting_call_says_nothing_of_what_runs(yard: Yard) -> None:
    """Found by the simulator (seed 389 of its first day): throttled while adopting was settled as lost, and the job
    ran twice at the same time."""
    yard.play(lasts_s=60.0)
    owner = yard.start_owner("service-1")
    uid = await yard.submit()
    await yard.starts(uid)
    owner.freeze()
    provider = ScriptedProvider(yard.world, is_far=True)
    provider.faults[Verb.RUN] += [refusal(Throttled("slow down", after_s=1.0)), refusal(NoCapacity("none"))]
    yard.start_owner("service-2", provider=provider)
    job = await yard.reaches(uid, JobState.SUCCEEDED)
    assert (job.attempts, job.unseen_tries) == (1, 0)


@pytest.mark.parametrize("verb", [Verb.CAN_DEQUEUE, Verb.QUEUE_SIZE])
@pytest.mark.parametrize("fault", [lost_request(Unreachable("?")), Fault(hangs=True)], ids=["error", "hang"])
async def test_a_place_that_gives_no_room_is_followed_all_the_same(
    yard: Yard, verb: Verb, fault: Fault
) -> None:
    """Found by the simulator (seed 19): an error of can_dequeue or handle_queue_size made the owner let go of all."""
    provider = ScriptedProvider(yard.world, is_far=True)
    yard.start_owner(provider=provider)
    first = await yard.submit()
    await yard.starts(first)
    provider.faults[verb] += [fault] * 1000
    await yard.submit()
    await asyncio.sleep(2)
    await yard.ledger.request_cancel(first)
    await yard.reaches(first, JobState.CANCELED, within_s=45)
    assert (await yard.ledger.get_pool("local")).epoch == 1


async def test_31_a_sweep_that_hangs_is_given_up_and_the_next_one_sweeps(yard: Yard) -> None:
    provider = ScriptedProvider(yard.world, is_far=True)
    provider.faults[Verb.LIST] += [Fault(hangs=True)] * 2
    key = AttemptKey("z" * 16, 1)
    request = AttemptRequest(key=key, job_id="gone", spec=a_spec(), slot=0, epoch=1)
    yard.world.places[key.resource_name] = Place(request=request, created_at=0.0)
    yard.start_owner(provider=provider)
    await asyncio.sleep(600)
    assert yard.world.places == {}


async def test_31_a_prune_that_hangs_does_not_stop_the_pool(yard: Yard) -> None:
    """Found by the simulator (seed 221): an operator's prune waited for a listing for ever, and so did all jobs."""
    yard.play(lasts_s=1.0)
    provider = ScriptedProvider(yard.world, is_far=True)
    provider.faults[Verb.LIST].append(Fault(hangs=True))
    yard.start_owner(provider=provider)
    asked = await yard.ledger.request_operation("local", OperationKind.PRUNE, {"dry_run": True})
    uid = await yard.submit()
    await yard.reaches(uid, JobState.SUCCEEDED, within_s=5)
    await asyncio.sleep(OPERATION_DEADLINE_S)
    operation = await yard.ledger.get_operation(asked.id)
    assert operation.result["ok"] is False


async def test_the_places_of_a_pool_that_was_given_up_are_cleared_and_its_slots_free_again(
    yard: Yard,
) -> None:
    yard.play()  # for ever
    yard.start_owner()
    uids = [await yard.submit() for _ in range(4)]  # all slots
    for uid in uids:
        await yard.starts(uid)
    await yard.ledger.request_operation("local", OperationKind.FORGET_POOL, {})
    async with asyncio.timeout(60):
        while {key.number for key in yard.world.running} != {2}:
            await asyncio.sleep(1)
            await yard.ledger.promote_due(limit=10)
    assert len(yard.world.running) == 4
    assert set(yard.world.starts.values()) == {1}


def refuses_to_make(provider: ScriptedProvider, error: Exception) -> None:
    provider.misbehave = lambda verb, name: refusal(error) if verb is Verb.RUN else None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProviderDenied("the key expired"), ReasonCode.PROVIDER),
        (InvalidRequest("no such shape"), ReasonCode.PROVIDER),
    ],
)
async def test_an_adopted_attempt_that_is_refused_and_nowhere_is_given_up_in_the_end(
    yard: Yard, error: Exception, code: ReasonCode
) -> None:
    provider = ScriptedProvider(yard.world, is_far=True)
    provider.faults[Verb.RUN].append(lost_request(Unreachable("no route")))
    refuses_to_make(provider, error)
    yard.start_owner(provider=provider)
    uid = await yard.submit()
    async with asyncio.timeout(24 * 3600):
        while (job := await yard.job(uid)).state is not JobState.REFUSED:
            await asyncio.sleep(10)
            await yard.ledger.promote_due(limit=10)
    assert job.reason.code is code
    assert yard.world.starts == {}


@pytest.mark.parametrize("is_listed", [True, False], ids=["listed", "listing incomplete"])
async def test_an_adopted_attempt_that_is_refused_is_kept_while_it_is_not_known_to_be_nowhere(
    yard: Yard, is_listed: bool
) -> None:
    yard.play(lasts_s=3000.0)
    first = yard.start_owner("service-1")
    uid = await yard.submit()
    await yard.starts(uid)
    first.freeze()
    provider = ScriptedProvider(yard.world, is_far=True)
    refuses_to_make(provider, ProviderDenied("the key expired"))
    if not is_listed:
        provider.faults[Verb.LIST] += [Fault(forgets=1.0, admits=True)] * 1000
    yard.start_owner("service-2", provider=provider)
    await asyncio.sleep(2500)
    provider.misbehave = lambda verb, name: None
    job = await yard.reaches(uid, JobState.SUCCEEDED)
    assert (job.attempts, job.unseen_tries) == (1, 0)
