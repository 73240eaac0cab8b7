"""Who goes next. Costs are equal (every attempt runs for what was estimated), so shares can be counted exactly."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runyard.model.outcome import lost
from runyard.model.queue import QueueSettings, TenantSettings
from runyard.model.requirements import Requirements
from tests.contracts.ledger.conftest import BACKENDS
from tests.contracts.ledger.world import BIG, SMALL, ManualClock, World

WEIGHTS = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}


async def served(world: World, count: int, *, by: str = "tenant", pool: str = "local") -> Counter[str]:
    counted: Counter[str] = Counter()
    for _ in range(count):
        [claimed] = await world.claim(pool=pool)
        counted[getattr(claimed.job, by)] += 1
        await world.settle(claimed)
    return counted


async def test_tenants_share_a_queue_by_weight_exactly(world: World):
    for tenant, weight in WEIGHTS.items():
        await world.ledger.put_tenant(TenantSettings(name=tenant, weight=weight))
        await world.submit_many(120, tenant=tenant)
    assert await served(world, 200) == {"a": 20, "b": 40, "c": 60, "d": 80}


async def test_one_batch_is_as_fair_as_many_single_claims(world: World):
    for tenant, weight in WEIGHTS.items():
        await world.ledger.put_tenant(TenantSettings(name=tenant, weight=weight))
        await world.submit_many(120, tenant=tenant)
    claimed = await world.claim(200)
    assert Counter(one.job.tenant for one in claimed) == {"a": 20, "b": 40, "c": 60, "d": 80}


async def test_queues_share_a_pool_by_weight_exactly(world: World):
    for queue, weight in WEIGHTS.items():
        await world.ledger.put_queue(QueueSettings(name=queue, weight=weight))
        await world.submit_many(120, queue=queue, tenant="same")
    assert await served(world, 200, by="queue") == {"a": 20, "b": 40, "c": 60, "d": 80}


async def test_a_tenant_with_many_jobs_does_not_push_back_one_with_few(world: World):
    await world.submit_many(500, tenant="crowd")
    await served(world, 3)
    job = await world.submit(tenant="small")
    claimed = await world.claim(2)
    assert job.uid in [one.job.uid for one in claimed]


async def test_an_idle_tenant_earns_no_credit(world: World):
    await world.submit_many(300, tenant="busy")
    await world.submit_many(1, tenant="idle")
    await served(world, 100)
    await world.submit_many(100, tenant="idle")
    assert await served(world, 20) == {"busy": 10, "idle": 10}


async def test_an_idle_queue_earns_no_credit(world: World):
    await world.ledger.put_queue(QueueSettings(name="busy"))
    await world.ledger.put_queue(QueueSettings(name="idle"))
    await world.submit_many(300, queue="busy")
    await served(world, 100)
    await world.submit_many(100, queue="idle")
    assert await served(world, 20, by="queue") == {"busy": 10, "idle": 10}


async def test_a_tenant_that_comes_with_ever_new_classes_earns_no_credit(world: World):
    await world.submit_many(300, tenant="busy")
    await served(world, 50)
    odd = [Requirements(memory_bytes=(1 << 30) + n) for n in range(20)]
    for requirements in odd:
        await world.submit(tenant="sly", requirements=requirements)
    rooms = {requirements.class_key(): 1 for requirements in [SMALL, *odd]} | {SMALL.class_key(): 100}
    claimed = await world.claim(20, rooms=rooms)
    assert Counter(one.job.tenant for one in claimed) == {"busy": 10, "sly": 10}


async def test_what_a_limit_held_back_is_not_owed_later(world: World):
    await world.ledger.put_tenant(TenantSettings(name="limited", running_max=0))
    await world.submit_many(200, tenant="limited")
    await world.submit_many(200, tenant="free")
    assert await served(world, 50) == {"free": 50}
    await world.ledger.put_tenant(TenantSettings(name="limited"))
    assert await served(world, 20) == {"free": 10, "limited": 10}


async def test_a_newcomer_to_a_slow_lane_does_not_wait_for_the_fast_one(world: World):
    """The clock is the lane's: 100 jobs went through the fast lane, one through the slow one."""
    only_big = {BIG.class_key(): 100}
    await world.submit_many(200, tenant="fast")
    await world.submit_many(50, tenant="slow", requirements=BIG)
    [big] = await world.claim(pool="big", rooms=only_big)
    await world.settle(big)
    for _ in range(100):
        [claimed] = await world.claim(rooms={SMALL.class_key(): 1})
        await world.settle(claimed)
    await world.submit_many(50, tenant="newcomer", requirements=BIG)
    claimed = await world.claim(20, pool="big", rooms=only_big)
    assert Counter(one.job.tenant for one in claimed)["newcomer"] in (9, 10, 11)


async def test_what_was_never_seen_running_costs_its_tenant_nothing(world: World):
    await world.submit_many(50, tenant="a")
    await world.submit_many(50, tenant="b")
    for claimed in await world.claim(20):
        await world.settle(claimed, lost("never started", was_seen=False))
    assert await served(world, 10) == {"a": 5, "b": 5}


async def test_a_changed_weight_counts_from_the_next_claim(world: World):
    await world.submit_many(200, tenant="a")
    await world.submit_many(200, tenant="b")
    await served(world, 20)
    await world.ledger.put_tenant(TenantSettings(name="b", weight=3.0))
    assert await served(world, 40) == {"a": 10, "b": 30}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(weights=st.lists(st.integers(1, 10), min_size=2, max_size=5), wall=st.integers(1, 50))
async def test_no_share_is_ever_more_than_one_job_off(weights: list[int], wall: int):
    ledger = BACKENDS["sqlite-inline"](None, clock := ManualClock())  # type: ignore[arg-type]
    await ledger.open()
    world = World(ledger, clock)
    for number, weight in enumerate(weights):
        await ledger.put_tenant(TenantSettings(name=f"t{number}", weight=weight))
        await world.submit_many(80, tenant=f"t{number}")
    counted: Counter[str] = Counter()
    for turn in range(1, 81):
        [claimed] = await world.claim()
        counted[claimed.job.tenant] += 1
        await world.settle(claimed)
        for number, weight in enumerate(weights):
            assert abs(counted[f"t{number}"] - turn * weight / sum(weights)) <= len(weights)
    await ledger.close()
