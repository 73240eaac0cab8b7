from runyard.model.attempt import AttemptKey
from runyard.model.outcome import ReasonCode, lost, refused
from runyard.model.requirements import Requirements
from tests.contracts.ledger.world import BIG, SMALL, World, failed, requeue


async def test_many_attempts_are_read_at_once(world: World):
    await world.submit_many(3)
    claimed = await world.claim(3)
    keys = [one.attempt.key for one in claimed]
    found = await world.ledger.get_attempts([*keys, AttemptKey("0" * 15 + "x", 1)])
    assert {one.key for one in found} == set(keys)
    assert await world.ledger.get_attempts([]) == []


async def test_a_jobs_events_are_the_latest_oldest_first(world: World):
    job = await world.submit()
    await world.submit()
    [claimed] = await world.claim()
    await world.run(claimed)
    await world.settle(claimed, failed())
    events = await world.ledger.list_job_events(job.uid, limit=10)
    assert [one.state for one in events] == ["queued", "starting", "running", "failed"]
    assert [one.state for one in await world.ledger.list_job_events(job.uid, limit=2)] == [
        "running",
        "failed",
    ]


async def test_the_attempts_of_a_class_are_those_that_succeeded_last(world: World):
    for requirements, outcome in ((SMALL, None), (SMALL, failed()), (BIG, None), (SMALL, None)):
        job = await world.submit(requirements=requirements)
        [claimed] = await world.claim()
        assert claimed.job.uid == job.uid
        world.clock.advance(1)
        await world.settle(claimed, outcome)
    found = await world.ledger.list_class_attempts(SMALL.class_key(), limit=10)
    assert [one.ended_at for one in found] == sorted((one.ended_at for one in found), reverse=True)
    assert len(found) == 2
    assert len(await world.ledger.list_class_attempts(SMALL.class_key(), limit=1)) == 1
    assert await world.ledger.list_class_attempts(Requirements(cpu_millis=7).class_key(), limit=5) == []


async def test_what_a_pool_lost_or_refused_is_found_with_its_job(world: World):
    await world.submit("fine")
    await world.submit("dies", queue="default")
    await world.submit("unfit")
    fine, dies, unfit = await world.claim(3)
    before = world.clock.at
    await world.settle(fine)
    world.clock.advance(1)
    await world.settle(dies, lost("the host went away", was_seen=True), decide=requeue())
    world.clock.advance(1)
    await world.settle(unfit, refused(ReasonCode.ISOLATION, "no cgroups"))
    found = await world.ledger.list_broken_attempts("local", since=before, limit=10)
    assert [one.job.id for one in found] == ["unfit", "dies"]
    assert found[1].attempt.outcome is not None
    assert found[1].attempt.outcome.reason is not None
    assert found[1].attempt.outcome.reason.message == "the host went away"
    assert len(await world.ledger.list_broken_attempts("local", since=before + 2, limit=10)) == 1
    assert await world.ledger.list_broken_attempts("other", since=before, limit=10) == []


async def test_who_waits_longest_comes_first(world: World):
    for name in ("first", "second", "third"):
        await world.submit(name)
        world.clock.advance(1)
    [claimed] = await world.claim()
    waiting = await world.ledger.list_longest_waiting("default", limit=2)
    assert [job.id for job in waiting] == [
        one for one in ("first", "second", "third") if one != claimed.job.id
    ]


async def test_shares_tell_who_is_served(world: World):
    await world.submit_many(3, tenant="a")
    await world.submit_many(1, tenant="b")
    [ended, *_] = await world.claim(2)
    shares = await world.ledger.list_shares("default", limit=10)
    assert {one.tenant: (one.queued, one.running) for one in shares} == {"a": (2, 1), "b": (0, 1)}
    await world.settle(ended)
    shares = await world.ledger.list_shares("default", limit=10)
    assert sum(one.running for one in shares) == 1
    assert await world.ledger.list_shares("none", limit=10) == []


async def test_ended_jobs_are_counted_by_queue(world: World):
    await world.submit_many(3)
    for claimed in await world.claim(2):
        await world.settle(claimed)
    since = world.clock.at
    counts = await world.ledger.count_ended(since=since)
    assert (dict(counts.by_queue), counts.since) == ({"default": 2}, since)
    world.clock.advance(60)
    assert dict((await world.ledger.count_ended(since=since + 1)).by_queue) == {}
