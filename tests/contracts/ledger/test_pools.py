import pytest

from runyard.model.errors import Conflict, Fenced, NotFound
from runyard.model.operation import OperationKind
from runyard.model.pool import AvailabilityKind, PoolHealth, WaitCode, now, soon
from tests.contracts.ledger.world import SMALL, World, pool_settings


async def test_a_pool_comes_back_as_it_was_put(world: World):
    settings = pool_settings(queues=("a", "b"), labels={"gpu": "1"}, host="h", description="bubblewrap")
    pool = await world.ledger.put_pool(settings)
    assert pool.settings == settings
    assert (pool.owner, pool.health) == (None, PoolHealth.UNOWNED)
    assert await world.ledger.get_pool("local") == pool
    assert await world.ledger.list_pools() == [pool]


async def test_putting_it_again_keeps_pause_owner_and_epoch(world: World):
    await world.own()
    await world.ledger.set_pool_paused("local", is_paused=True)
    pool = await world.ledger.put_pool(pool_settings(slots=3))
    assert (pool.settings.slots, pool.is_paused, pool.owner, pool.epoch) == (3, True, "me", 1)


async def test_a_lease_keeps_others_out_until_it_is_over(world: World):
    await world.own()
    assert await world.ledger.acquire_pool("local", owner="other", lease_s=30) is None
    world.clock.advance(30)
    taken = await world.ledger.acquire_pool("local", owner="other", lease_s=30)
    assert taken is not None
    assert taken.epoch == 2


async def test_a_restart_under_the_same_name_gets_a_new_epoch(world: World):
    old, new = await world.own(), await world.own()
    assert new.epoch == old.epoch + 1
    with pytest.raises(Fenced):
        await world.ledger.renew_pool(old, lease_s=30)


async def test_a_renewal_prolongs_the_lease(world: World):
    fence = await world.own()
    world.clock.advance(20)
    await world.ledger.renew_pool(fence, lease_s=30)
    world.clock.advance(20)
    assert await world.ledger.acquire_pool("local", owner="other", lease_s=30) is None


async def test_a_lease_that_ran_out_still_writes_while_nobody_took_over(world: World):
    fence = await world.own()
    world.clock.advance(100)
    await world.ledger.set_pool_health(fence, health=PoolHealth.HEALTHY, message="")
    pool = await world.ledger.get_pool("local")
    assert pool is not None
    assert (pool.owner, pool.health) == (None, PoolHealth.UNOWNED)
    await world.ledger.renew_pool(fence, lease_s=30)
    pool = await world.ledger.get_pool("local")
    assert pool is not None
    assert pool.health == PoolHealth.HEALTHY


async def test_a_released_pool_can_be_taken_at_once_and_is_not_renewed(world: World):
    fence = await world.own()
    await world.ledger.release_pool(fence)
    with pytest.raises(Fenced):
        await world.ledger.renew_pool(fence, lease_s=30)
    taken = await world.ledger.acquire_pool("local", owner="other", lease_s=30)
    assert taken is not None
    await world.ledger.release_pool(fence)  # silent: no longer ours
    pool = await world.ledger.get_pool("local")
    assert pool is not None
    assert pool.owner == "other"


async def test_every_write_with_an_old_epoch_is_fenced(world: World):
    old = await world.own()
    operation = await world.ledger.request_operation("local", OperationKind.PRUNE, {})
    await world.own()
    with pytest.raises(Fenced):
        await world.ledger.set_pool_health(old, health=PoolHealth.HEALTHY, message="")
    with pytest.raises(Fenced):
        await world.ledger.set_availability(old, {})
    with pytest.raises(Fenced):
        await world.ledger.list_demand(old)
    with pytest.raises(Fenced):
        await world.ledger.finish_operation(old, operation.id, {})


async def test_a_pool_with_unfinished_attempts_is_not_deleted(world: World):
    await world.submit()
    [claimed] = await world.claim()
    with pytest.raises(Conflict):
        await world.ledger.delete_pool("local")
    await world.settle(claimed)
    await world.ledger.delete_pool("local")
    assert await world.ledger.get_pool("local") is None
    with pytest.raises(NotFound):
        await world.ledger.delete_pool("local")
    with pytest.raises(NotFound):
        await world.ledger.acquire_pool("local", owner="me", lease_s=1)
    with pytest.raises(NotFound):
        await world.ledger.set_pool_paused("local", is_paused=True)


async def test_since_of_an_availability_moves_only_with_kind_or_code(world: World):
    fence = await world.own()
    job = await world.submit()
    start = world.clock.now()
    for answer, since in (
        (soon(WaitCode.POOL_FULL, "full"), start),
        (soon(WaitCode.POOL_FULL, "still full", eta_s=5), start),
        (soon(WaitCode.QUOTA, "quota"), start + 2),
        (now(3), start + 3),
    ):
        await world.ledger.set_availability(fence, {SMALL.class_key(): answer})
        facts = await world.ledger.wait_facts(job.uid)
        assert facts is not None
        [stored] = facts.availability
        assert (stored.availability, stored.since, stored.stated_at) == (answer, since, world.clock.now())
        world.clock.advance(1)
    assert stored.availability.kind == AvailabilityKind.NOW


async def test_an_operation_waits_for_the_owner_and_its_first_answer_stands(world: World):
    fence = await world.own()
    subscription = world.ledger.subscribe("pool:local")
    operation = await world.ledger.request_operation("local", OperationKind.PRUNE, {"dry_run": True})
    assert await subscription.wait(0) == {"pool:local"}
    assert await world.ledger.list_operations("local") == [operation]
    await world.ledger.finish_operation(fence, operation.id, {"removed": 1})
    await world.ledger.finish_operation(fence, operation.id, {"removed": 2})
    finished = await world.ledger.get_operation(operation.id)
    assert finished is not None
    assert (finished.result, finished.finished_at) == ({"removed": 1}, world.clock.now())
    assert await world.ledger.list_operations("local") == []
    assert await world.ledger.get_last_answered("local", OperationKind.PRUNE) == finished
    assert await world.ledger.get_last_answered("local", OperationKind.CHECK_POOL) is None
    assert await world.ledger.get_operation("nonsense") is None
    with pytest.raises(NotFound):
        await world.ledger.request_operation("nowhere", OperationKind.PRUNE, {})
    with pytest.raises(NotFound):
        await world.ledger.finish_operation(fence, "op-999", {})
