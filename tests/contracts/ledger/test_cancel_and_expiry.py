import pytest

from runyard.model.errors import Conflict, NotFound
from runyard.model.job import JobState, Limits
from runyard.model.outcome import ReasonCode
from tests.contracts.ledger.world import World, failed, requeue


async def test_a_queued_job_is_canceled_at_once_and_never_claimed(world: World):
    job = await world.submit()
    canceled = await world.ledger.request_cancel(job.uid)
    assert canceled.state == JobState.CANCELED
    assert canceled.reason is not None
    assert canceled.reason.code == ReasonCode.CANCELED
    assert canceled.ended_at == world.clock.now()
    assert await world.claim() == []
    assert (await world.ledger.list_queues())[0].queued == 0


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_claimed_job_becomes_canceling_and_its_owner_is_told(world: World, is_running: bool):
    job = await world.submit()
    [claimed] = await world.claim()
    if is_running:
        await world.run(claimed)
    subscription = world.ledger.subscribe("pool:local")
    canceling = await world.ledger.request_cancel(job.uid)
    assert (canceling.state, canceling.cancel_requested_at) == (JobState.CANCELING, world.clock.now())
    assert await subscription.wait(0) == {"pool:local"}
    assert await world.ledger.request_cancel(job.uid) == canceling


async def test_a_decision_sees_the_cancel_that_came_first(world: World):
    job = await world.submit()
    [claimed] = await world.claim()
    await world.ledger.request_cancel(job.uid)
    settled = await world.settle(claimed, failed(), decide=requeue())
    assert settled is not None
    assert settled.state == JobState.CANCELED


async def test_a_canceling_job_that_starts_to_run_stays_canceling(world: World):
    job = await world.submit()
    [claimed] = await world.claim()
    await world.ledger.request_cancel(job.uid)
    await world.run(claimed)
    assert (await world.job(job.uid)).state == JobState.CANCELING
    await world.settle(claimed)
    queue = (await world.ledger.list_queues())[0]
    assert (queue.starting, queue.running) == (0, 0)


async def test_a_job_held_back_for_a_retry_can_be_canceled(world: World):
    job = await world.submit()
    [claimed] = await world.claim()
    await world.settle(claimed, failed(), decide=requeue(after_s=60))
    assert (await world.ledger.request_cancel(job.uid)).state == JobState.CANCELED
    assert await world.ledger.next_due_at() is None


async def test_a_final_job_is_returned_as_it_is(world: World):
    job = await world.submit()
    [claimed] = await world.claim()
    settled = await world.settle(claimed)
    assert await world.ledger.request_cancel(job.uid) == settled
    with pytest.raises(NotFound):
        await world.ledger.request_cancel("no-such-uid")


async def test_a_job_whose_queue_deadline_passed_is_timed_out(world: World):
    job = await world.submit(limits=Limits(queue_s=60))
    patient = await world.submit()
    assert await world.ledger.expire_queued(limit=10) == []
    world.clock.advance(60)
    assert await world.ledger.expire_queued(limit=10) == [job.uid]
    expired = await world.job(job.uid)
    assert expired.state == JobState.TIMED_OUT
    assert expired.reason is not None
    assert expired.reason.code == ReasonCode.QUEUE_TIMEOUT
    assert [one.job.uid for one in await world.claim(5)] == [patient.uid]


async def test_the_queue_deadline_ends_with_the_first_claim(world: World):
    job = await world.submit(limits=Limits(queue_s=60))
    [claimed] = await world.claim()
    await world.settle(claimed, failed(), decide=requeue())
    world.clock.advance(100)
    assert await world.ledger.next_due_at() is None
    assert await world.ledger.expire_queued(limit=10) == []
    assert (await world.job(job.uid)).state == JobState.QUEUED


async def test_only_a_final_job_can_be_deleted(world: World):
    job = await world.submit(labels={"a": "b"})
    with pytest.raises(Conflict):
        await world.ledger.delete_job(job.uid)
    [claimed] = await world.claim()
    await world.settle(claimed)
    await world.ledger.delete_job(job.uid)
    assert await world.ledger.get_job(job.uid) is None
    assert await world.ledger.list_attempts(job.uid) == []
    with pytest.raises(NotFound):
        await world.ledger.delete_job(job.uid)
