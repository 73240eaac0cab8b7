from typing import Any

from runyard.ledger import rows
from runyard.ledger.statements import RECEIVED_MAX
from runyard.model.attempt import AttemptKey
from runyard.model.outcome import ReasonCode, Usage, lost, refused
from runyard.model.queue import QueueSettings
from runyard.model.requirements import Requirements
from runyard.model.waiting import TenantDepth
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
    waiting = await world.ledger.list_longest_waiting(queue="default", limit=2)
    assert [job.id for job in waiting] == [
        one for one in ("first", "second", "third") if one != claimed.job.id
    ]


async def test_who_of_some_tenants_waits_longest_comes_first(world: World):
    await world.ledger.put_queue(QueueSettings(name="other"))
    for name, tenant, queue in (
        ("b1", "b", "default"),
        ("a1", "a", "other"),
        ("c1", "c", "default"),
        ("a2", "a", "default"),
        ("b2", "b", "default"),
    ):
        await world.submit(name, tenant=tenant, queue=queue)
        world.clock.advance(1)

    async def waiting(limit: int = 10, **filters: Any) -> list[str]:
        return [job.id for job in await world.ledger.list_longest_waiting(limit=limit, **filters)]

    assert await waiting(tenants=("a",)) == ["a1", "a2"]
    assert await waiting(tenants=("b", "a")) == ["b1", "a1", "a2", "b2"]
    assert await waiting(tenants=("b", "a"), queue="default") == ["b1", "a2", "b2"]
    assert await waiting(tenants=("b", "a"), queue="default", limit=2) == ["b1", "a2"]
    assert await waiting(tenants=()) == []


async def test_a_tenants_queues_are_those_in_which_it_has_something(world: World):
    await world.ledger.put_queue(QueueSettings(name="other"))
    await world.submit_many(3, tenant="a", queue="other")
    await world.claim(1)
    await world.submit_many(2, tenant="a")
    await world.submit_many(1, tenant="b")
    depths = await world.ledger.list_tenant_depths("a", limit=10)
    assert depths == [
        TenantDepth(queue="other", queued=2, running=1),
        TenantDepth(queue="default", queued=2, running=0),
    ]
    assert len(await world.ledger.list_tenant_depths("a", limit=1)) == 1
    assert await world.ledger.list_tenant_depths("none", limit=10) == []


async def received(world: World, last_s: float) -> dict[tuple[str, str], float]:
    now = world.clock.at
    found = await world.ledger.read_received(since=now - last_s, now=now)
    assert found.since == now - last_s
    return {key: round(seconds, 3) for key, seconds in found.by_share.items()}


async def test_what_was_received_is_the_seconds_that_lie_within_weighed_by_what_was_held(world: World):
    """SMALL holds one core, BIG four."""
    await world.ledger.put_queue(QueueSettings(name="other"))
    await world.submit(tenant="a")
    [short] = await world.claim()
    await world.submit(tenant="b", requirements=BIG, queue="other")
    [large] = await world.claim()
    await world.submit(tenant="a")
    [long] = await world.claim()
    for one in (short, large, long):
        await world.run(one)
    world.clock.advance(100)
    await world.settle(short, wall_s=100)
    await world.settle(large, wall_s=90)
    world.clock.advance(100)
    assert await received(world, 300) == {("default", "a"): 300, ("other", "b"): 360}, (
        "100 s, and 200 s so far"
    )
    assert await received(world, 150) == {("default", "a"): 200, ("other", "b"): 200}, (
        "50 s and 150 s of them"
    )
    await world.settle(long, wall_s=200)
    world.clock.advance(50)
    assert await received(world, 100) == {("default", "a"): 50}
    assert await received(world, 40) == {}


async def test_what_never_ran_received_nothing_and_each_try_counts(world: World):
    await world.submit("unlucky")
    [first] = await world.claim()
    world.clock.advance(30)
    await world.settle(first, lost("no place came up", was_seen=False), decide=requeue())
    assert await received(world, 60) == {("default", "default"): 0}
    [second] = await world.claim()
    await world.run(second)
    world.clock.advance(30)
    away = lost("the host went away", was_seen=True, usage=Usage(wall_s=30.0))
    await world.settle(second, away, decide=requeue())
    assert await received(world, 60) == {("default", "default"): 30}


async def test_what_was_received_does_not_depend_on_whether_logs_are_kept(world: World):
    await world.submit_many(2)
    claimed = await world.claim(2)
    world.clock.advance(20)
    for one in claimed:
        await world.settle(one, wall_s=20)
    await world.ledger.mark_logs_deleted([claimed[0].attempt.key])
    assert await received(world, 60) == {("default", "default"): 40}


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


def test_where_the_bound_was_reached_what_was_received_reaches_back_to_the_oldest_that_was_counted():
    assert rows.received_since({"ended": RECEIVED_MAX, "first_at": 70.0}, 50.0) == 70.0
    assert rows.received_since({"ended": RECEIVED_MAX - 1, "first_at": 70.0}, 50.0) == 50.0
    assert rows.received_since({"ended": 0, "first_at": None}, 50.0) == 50.0
