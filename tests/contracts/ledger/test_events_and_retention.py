from runyard.model.attempt import AttemptKey
from tests.contracts.ledger.world import World, failed, requeue


async def test_each_change_of_state_is_an_event_in_order(world: World):
    job = await world.submit("build", tenant="acme")
    [claimed] = await world.claim()
    await world.run(claimed)
    await world.settle(claimed, failed(), decide=requeue())
    [claimed] = await world.claim()
    await world.ledger.request_cancel(job.uid)
    await world.settle(claimed)
    events = await world.ledger.list_events(after=0, limit=100)
    assert [(event.state, event.attempt) for event in events] == [
        ("queued", 0),
        ("starting", 1),
        ("running", 1),
        ("queued", 1),
        ("starting", 2),
        ("canceling", 2),
        ("succeeded", 2),
    ]
    assert [event.sequence for event in events] == sorted({event.sequence for event in events})
    first = events[0]
    assert (first.tenant, first.queue, first.job_id, first.uid) == ("acme", "default", "build", job.uid)


async def test_the_feed_goes_on_after_a_sequence_and_by_tenant(world: World):
    for tenant in ("a", "b", "c", "a"):
        await world.submit(tenant=tenant)
    events = await world.ledger.list_events(after=0, limit=100)
    assert await world.ledger.list_events(after=events[1].sequence, limit=1) == [events[2]]
    assert await world.ledger.list_events(after=0, limit=2, tenants=("a",)) == [events[0], events[3]]
    assert await world.ledger.list_events(after=0, limit=3, tenants=("a", "b")) == [
        events[0],
        events[1],
        events[3],
    ]
    assert await world.ledger.list_events(after=0, limit=9, tenants=()) == []


async def test_bounds_survive_the_deletion_of_every_event(world: World):
    assert await world.ledger.event_bounds() == (1, 0)
    await world.submit_many(3)
    oldest, newest = await world.ledger.event_bounds()
    assert newest == oldest + 2
    world.clock.advance(10)
    await world.submit()
    assert await world.ledger.delete_events(before=world.clock.now(), limit=2) == 2
    assert await world.ledger.event_bounds() == (oldest + 2, newest + 1)
    assert await world.ledger.delete_events(before=world.clock.now() + 1, limit=100) == 2
    assert await world.ledger.event_bounds() == (newest + 2, newest + 1)


async def test_logs_and_artifacts_expire_once_their_job_is_final(world: World):
    job = await world.submit()
    [first] = await world.claim()
    await world.settle(first, failed(), decide=requeue())
    world.clock.advance(100)
    assert await world.ledger.list_expired_logs(ended_before=world.clock.now(), limit=10) == []
    [second] = await world.claim()
    await world.settle(second)
    both = [AttemptKey(job.uid, 1), AttemptKey(job.uid, 2)]
    later = world.clock.now() + 1
    assert await world.ledger.list_expired_logs(ended_before=later, limit=10) == both
    assert await world.ledger.list_expired_logs(ended_before=later, limit=1) == both[:1]
    assert await world.ledger.list_expired_artifacts(ended_before=world.clock.now(), limit=10) == both[:1]
    await world.ledger.mark_logs_deleted(both[:1])
    assert await world.ledger.list_expired_logs(ended_before=later, limit=10) == both[1:]
    assert await world.ledger.is_logs_deleted(both[0])
    assert not await world.ledger.is_logs_deleted(both[1])
    await world.ledger.mark_artifacts_deleted(iter(both))
    assert await world.ledger.list_expired_artifacts(ended_before=later, limit=10) == []


async def test_final_jobs_expire_oldest_first(world: World):
    jobs = await world.submit_many(3)
    for claimed in await world.claim(2):
        await world.settle(claimed)
        world.clock.advance(10)
    assert await world.ledger.list_expired_jobs(ended_before=world.clock.now(), limit=10) == [
        jobs[0].uid,
        jobs[1].uid,
    ]
    assert await world.ledger.list_expired_jobs(ended_before=world.clock.now(), limit=1) == [jobs[0].uid]
