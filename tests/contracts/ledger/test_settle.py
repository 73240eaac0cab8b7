import pytest

from runyard.model.attempt import AttemptKey, AttemptState
from runyard.model.errors import Fenced
from runyard.model.job import JobState
from runyard.model.outcome import OutcomeKind, lost
from runyard.model.queue import QueueSettings, TenantSettings
from tests.contracts.ledger.world import World, failed, finish, requeue


async def test_running_is_recorded_once_and_moves_the_job(world: World):
    job = await world.submit()
    [claimed] = await world.claim()
    fence, key = world.fences["local"], claimed.attempt.key
    await world.ledger.record_phases(fence, key, {"preparing": 1.0})
    assert (await world.job(job.uid)).state == JobState.STARTING
    await world.ledger.record_phases(fence, key, {"running": 2.0, "preparing": 9.0})
    await world.ledger.record_phases(fence, key, {"running": 3.0})
    attempt = await world.ledger.get_attempt(key)
    assert attempt is not None
    assert (attempt.state, attempt.started_at) == (AttemptState.RUNNING, 2.0)
    assert attempt.phases == {"preparing": 1.0, "running": 2.0}
    read = await world.job(job.uid)
    assert (read.state, read.started_at) == (JobState.RUNNING, 2.0)
    queue = await world.ledger.get_queue("default")
    assert queue is not None
    assert (queue.queued, queue.starting, queue.running) == (0, 0, 1)


async def test_a_settled_job_is_final_with_its_outcome_and_outputs(world: World):
    job = await world.submit()
    [claimed] = await world.claim()
    await world.run(claimed)
    world.clock.advance(3)
    settled = await world.settle(claimed, phases={"collecting": 5.0}, outputs={"version": "1.2"})
    assert settled == await world.job(job.uid)
    assert settled is not None
    assert (settled.state, settled.ended_at) == (JobState.SUCCEEDED, world.clock.now())
    assert settled.outputs == {"version": "1.2"}
    [attempt] = await world.ledger.list_attempts(job.uid)
    assert attempt.outcome is not None
    assert attempt.outcome.kind == OutcomeKind.SUCCEEDED
    assert attempt.phases.keys() == {"running", "collecting"}
    assert await world.states(job.uid) == ["queued", "starting", "running", "succeeded"]


async def test_a_second_outcome_changes_nothing(world: World):
    job = await world.submit()
    [claimed] = await world.claim()
    first = await world.settle(claimed)
    assert await world.settle(claimed, failed(), decide=requeue()) == first
    assert await world.states(job.uid) == ["queued", "starting", "succeeded"]
    await world.run(claimed)  # silent
    assert await world.job(job.uid) == first


async def test_a_late_outcome_of_an_earlier_attempt_leaves_the_later_one_alone(world: World):
    await world.submit()
    [first] = await world.claim()
    await world.settle(first, lost("gone", was_seen=False), decide=requeue())
    [second] = await world.claim()
    job = await world.settle(first)
    assert job is not None
    assert (job.state, job.attempts) == (JobState.STARTING, 2)
    assert await world.ledger.list_unfinished(world.fences["local"]) == [second]


async def test_settling_what_is_not_there_answers_none(world: World):
    fence = await world.own()
    key = AttemptKey("0" * 16, 1)
    assert await world.ledger.settle(fence, key, failed(), decide=finish) is None


async def test_a_failing_decision_leaves_the_attempt_unfinished(world: World):
    await world.submit()
    [claimed] = await world.claim()

    def decide(*_: object):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await world.settle(claimed, decide=decide)
    assert await world.ledger.list_unfinished(world.fences["local"]) == [claimed]


async def test_a_retry_keeps_its_place_or_goes_to_the_end(world: World):
    first = await world.submit()
    world.clock.advance(1)
    second = await world.submit()
    for keeps_place, expected in ((True, first), (False, second)):
        [claimed] = await world.claim()
        assert claimed.job.uid == first.uid
        world.clock.advance(1)
        job = await world.settle(claimed, failed(), decide=requeue(keeps_place=keeps_place))
        assert job is not None
        assert job.state == JobState.QUEUED
        [claimed] = await world.claim()
        assert claimed.job.uid == expected.uid
        await world.settle(claimed, failed(), decide=requeue(keeps_place=True))


async def test_a_retry_with_a_delay_is_ready_only_when_it_is_due(world: World):
    job = await world.submit()
    [claimed] = await world.claim()
    await world.settle(claimed, failed(), decide=requeue(after_s=30))
    assert await world.claim() == []
    assert await world.ledger.next_due_at() == world.clock.now() + 30
    assert await world.ledger.promote_due(limit=10) == 0
    world.clock.advance(30)
    assert await world.ledger.promote_due(limit=10) == 1
    assert await world.ledger.next_due_at() is None
    [again] = await world.claim()
    assert (again.job.uid, again.job.infrastructure_failures) == (job.uid, 1)


async def test_settling_frees_every_counter(world: World):
    await world.submit_many(4)
    claimed = await world.claim(4)
    await world.run(claimed[0])
    for one in claimed:
        await world.settle(one)
    queue, tenant = await world.ledger.get_queue("default"), await world.ledger.get_tenant("default")
    pool = await world.ledger.get_pool("local")
    assert queue is not None
    assert tenant is not None
    assert pool is not None
    assert (queue.queued, queue.starting, queue.running, tenant.queued, tenant.running) == (0, 0, 0, 0, 0)
    assert (pool.starting, pool.running) == (0, 0)


async def test_the_estimate_of_a_class_is_learned_from_its_attempts(world: World):
    await world.submit_many(3)
    [first] = await world.claim()
    assert first.attempt.charged == 10.0  # the guess: ten seconds of one core
    await world.settle(first, wall_s=100.0)
    [second] = await world.claim()
    assert second.attempt.charged == 100.0
    await world.settle(second, lost("never seen", was_seen=False))
    [third] = await world.claim()
    assert third.attempt.charged == 100.0


async def test_the_charge_is_corrected_to_what_was_used(world: World):
    await world.submit_many(9, tenant="long")
    await world.submit_many(9, tenant="short")
    used = {"long": 0.0, "short": 0.0}
    for _ in range(9):
        [claimed] = await world.claim()
        wall_s = 40.0 if claimed.job.tenant == "long" else 10.0
        used[claimed.job.tenant] += wall_s
        await world.settle(claimed, wall_s=wall_s)
    assert abs(used["long"] - used["short"]) <= 40.0


async def test_another_pool_cannot_settle_the_attempt(world: World):
    await world.submit()
    [claimed] = await world.claim()
    other = await world.own("other")
    with pytest.raises(Fenced):
        await world.ledger.settle(other, claimed.attempt.key, failed(), decide=finish)


async def test_an_old_epoch_settles_nothing_and_the_new_one_does(world: World):
    await world.submit()
    [claimed] = await world.claim()
    old = world.fences["local"]
    await world.own()
    with pytest.raises(Fenced):
        await world.ledger.settle(old, claimed.attempt.key, failed(), decide=finish)
    with pytest.raises(Fenced):
        await world.ledger.record_phases(old, claimed.attempt.key, {"running": 1.0})
    job = await world.settle(claimed)
    assert job is not None
    assert job.state == JobState.SUCCEEDED


async def test_a_settle_under_a_limit_wakes_who_waits_for_room(world: World):
    await world.ledger.put_queue(QueueSettings(name="default", running_max=1))
    await world.submit_many(2)
    [claimed] = await world.claim(2)
    subscription = world.ledger.subscribe("ready")
    await world.settle(claimed)
    assert await subscription.wait(0) == {"ready"}
    await world.ledger.put_queue(QueueSettings(name="default"))
    await world.ledger.put_tenant(TenantSettings(name="default", running_max=1))
    await world.submit()
    [claimed] = await world.claim(2)
    await subscription.wait(0)
    await world.settle(claimed)
    assert await subscription.wait(0) == {"ready"}
