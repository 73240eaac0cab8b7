import pytest

from runyard.ledger.port import ClaimRequest
from runyard.model.errors import Fenced
from runyard.model.job import JobState
from runyard.model.pool import Budget, Fence
from runyard.model.queue import QueueSettings, TenantSettings
from tests.contracts.ledger.world import BIG, PLENTY, SMALL, World, requeue


async def test_a_claim_makes_an_attempt_in_the_given_slot(world: World):
    job = await world.submit()
    [claimed] = await world.claim(slots=(7, 3))
    assert claimed.job.uid == job.uid
    assert claimed.job.state == JobState.STARTING
    assert (claimed.attempt.key.number, claimed.attempt.slot, claimed.attempt.epoch) == (1, 7, 1)
    assert await world.ledger.list_attempts(job.uid) == [claimed.attempt]
    assert await world.claim() == []


async def test_slots_in_use_are_ignored(world: World):
    await world.submit_many(3)
    await world.claim(slots=(0,))
    claimed = await world.claim(slots=(0, 0, 1))
    assert [one.attempt.slot for one in claimed] == [1]


async def test_a_pool_never_holds_more_attempts_than_slots(world: World):
    await world.own(slots=2)
    await world.submit_many(5)
    assert len(await world.claim(5)) == 2
    assert await world.claim(5) == []


async def test_higher_priority_goes_first_then_the_older(world: World):
    low = await world.submit(priority=-1)
    first = await world.submit()
    world.clock.advance(1)
    second = await world.submit()
    high = await world.submit(priority=5, requirements=BIG)
    claimed = await world.claim(4)
    assert [one.job.uid for one in claimed] == [high.uid, first.uid, second.uid, low.uid]


async def test_only_the_classes_with_room_are_taken_and_at_most_as_many(world: World):
    await world.submit_many(3, requirements=BIG)
    await world.submit_many(3)
    claimed = await world.claim(6, rooms={BIG.class_key(): 0, SMALL.class_key(): 2, "unknown": 4})
    assert [one.job.spec.requirements for one in claimed] == [SMALL, SMALL]


async def test_the_budget_shrinks_with_each_claim_and_smaller_classes_still_fit(world: World):
    await world.submit_many(2, requirements=BIG, priority=1)
    await world.submit_many(3)
    claimed = await world.claim(5, budget=Budget(cpu_millis=5000, memory_bytes=1 << 40))
    assert [one.job.spec.requirements for one in claimed] == [BIG, SMALL]


async def test_only_queues_that_the_pool_serves_are_taken_from(world: World):
    await world.ledger.put_queue(QueueSettings(name="mine"))
    await world.own("narrow", queues=("mine",))
    await world.submit()
    job = await world.submit(queue="mine")
    assert [one.job.uid for one in await world.claim(5, pool="narrow")] == [job.uid]


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(world: World):
    await world.submit()
    await world.ledger.put_queue(QueueSettings(name="default", is_paused=True))
    assert await world.claim() == []
    await world.ledger.put_queue(QueueSettings(name="default"))
    assert len(await world.claim()) == 1


async def test_a_paused_pool_takes_nothing(world: World):
    await world.own()
    await world.submit()
    await world.ledger.set_pool_paused("local", is_paused=True)
    assert await world.claim() == []


async def test_running_max_of_a_queue_holds_and_opens_with_a_settle(world: World):
    await world.ledger.put_queue(QueueSettings(name="default", running_max=2))
    await world.submit_many(5)
    first = await world.claim(5)
    assert len(first) == 2
    await world.settle(first[0])
    assert len(await world.claim(5)) == 1


async def test_running_max_of_a_tenant_counts_over_all_queues(world: World):
    await world.ledger.put_queue(QueueSettings(name="other"))
    await world.ledger.put_tenant(TenantSettings(name="a", running_max=2))
    await world.submit_many(3, tenant="a")
    await world.submit_many(3, tenant="a", queue="other")
    claimed = await world.claim(6)
    assert len(claimed) == 2
    await world.settle(claimed[0])
    assert len(await world.claim(6)) == 1


async def test_a_tenant_at_its_limit_does_not_hold_up_the_others(world: World):
    await world.ledger.put_queue(QueueSettings(name="default", tenant_running_max=1))
    await world.submit_many(3, tenant="a")
    await world.submit_many(3, tenant="b")
    assert sorted(one.job.tenant for one in await world.claim(6)) == ["a", "b"]


async def test_changed_limits_take_effect_at_once(world: World):
    await world.submit_many(6, tenant="a")
    await world.ledger.put_queue(QueueSettings(name="default", tenant_running_max=1))
    assert len(await world.claim(6)) == 1
    await world.ledger.put_queue(QueueSettings(name="default", tenant_running_max=3))
    assert len(await world.claim(6)) == 2
    await world.ledger.put_tenant(TenantSettings(name="a", running_max=3))
    await world.ledger.put_queue(QueueSettings(name="default"))
    assert await world.claim(6) == []
    await world.ledger.put_tenant(TenantSettings(name="a"))
    assert len(await world.claim(6)) == 3


async def test_attempts_are_numbered_upwards_over_retries(world: World):
    job = await world.submit()
    for number in (1, 2, 3):
        [claimed] = await world.claim()
        assert claimed.attempt.key.number == number
        await world.settle(claimed, decide=requeue())
    assert [one.key.number for one in await world.ledger.list_attempts(job.uid)] == [1, 2, 3]


async def test_demand_counts_ready_jobs_by_class(world: World):
    fence = await world.own()
    await world.submit_many(2)
    world.clock.advance(5)
    await world.submit(requirements=BIG)
    small, big = await world.ledger.list_demand(fence)
    assert (small.requirements, small.queued, small.oldest_queued_at) == (SMALL, 2, world.clock.now() - 5)
    assert (big.class_key, big.queued) == (BIG.class_key(), 1)
    await world.ledger.put_queue(QueueSettings(name="default", is_paused=True))
    assert await world.ledger.list_demand(fence) == []


async def test_what_an_unanswered_claim_took_is_found_again(world: World):
    fence = await world.own()
    await world.submit_many(2)
    claimed = await world.claim(2)
    assert await world.ledger.list_unfinished(fence) == claimed


async def test_an_old_epoch_claims_nothing(world: World):
    fence = await world.own()
    await world.submit()
    await world.own()
    request = ClaimRequest(fence=fence, free_slots=(0,), rooms={SMALL.class_key(): 1}, budget=PLENTY)
    with pytest.raises(Fenced):
        await world.ledger.claim(request)
    with pytest.raises(Fenced):
        await world.ledger.list_unfinished(Fence("nowhere", 1))
