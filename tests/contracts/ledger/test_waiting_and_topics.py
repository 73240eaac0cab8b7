import asyncio

from runyard.model.job import NewJob
from runyard.model.queue import QueueSettings, TenantSettings
from tests.contracts.ledger.world import BIG, World, failed, new_job, pool_settings, requeue


async def test_the_facts_of_a_wait_are_one_snapshot(world: World):
    await world.ledger.put_queue(QueueSettings(name="other"))
    await world.ledger.put_pool(pool_settings("elsewhere", queues=("other",)))
    await world.ledger.put_tenant(TenantSettings(name="a", weight=2.0))
    await world.submit_many(3, tenant="a")
    await world.submit(tenant="a", requirements=BIG, priority=1)
    await world.submit(tenant="b")
    [claimed] = await world.claim()
    assert claimed.job.spec.priority == 1
    job = await world.submit(tenant="a")
    facts = await world.ledger.wait_facts(job.uid)
    assert facts is not None
    assert facts.now == world.clock.now()
    assert facts.job == job
    assert facts.queue.settings.name == "default"
    assert (facts.queue.queued, facts.tenant.queued, facts.tenant.running) == (5, 4, 1)
    assert facts.tenant_running_in_queue == 1
    assert [pool.settings.name for pool in facts.pools] == ["local"]
    assert facts.ahead_in_tenant == 3
    assert [(share.tenant, share.weight, share.queued) for share in facts.shares] == [
        ("b", 1.0, 1),
        ("a", 2.0, 4),
    ]


async def test_a_job_that_does_not_wait_has_no_such_facts(world: World):
    job = await world.submit()
    [claimed] = await world.claim()
    assert await world.ledger.wait_facts(job.uid) is None
    await world.settle(claimed, failed(), decide=requeue(after_s=9))
    facts = await world.ledger.wait_facts(job.uid)
    assert facts is not None
    assert facts.job.not_before == world.clock.now() + 9
    assert await world.ledger.wait_facts("nobody") is None


async def test_a_topic_that_fired_before_the_wait_is_not_missed(world: World):
    subscription = world.ledger.subscribe("ready", "job:0000000000000001")
    await world.submit()
    assert await subscription.wait(0) == {"ready", "job:0000000000000001"}
    assert await subscription.wait(0) == frozenset()


async def test_a_waiting_task_is_woken(world: World):
    subscription = world.ledger.subscribe("events")
    waiting = asyncio.create_task(subscription.wait(60))
    await asyncio.sleep(0)
    await world.submit()
    assert await waiting == {"events"}


async def test_a_closed_subscription_hears_nothing_more(world: World):
    subscription = world.ledger.subscribe("ready")
    waiting = asyncio.create_task(subscription.wait(60))
    await asyncio.sleep(0)
    subscription.close()
    await world.submit()
    assert await waiting == frozenset()
    assert await subscription.wait(60) == frozenset()


async def test_a_refused_submit_fires_nothing(world: World):
    subscription = world.ledger.subscribe("ready", "events")
    await world.try_submit(queue="nowhere")
    assert await subscription.wait(0) == frozenset()


async def test_a_promoted_retry_and_a_resumed_queue_fire_ready(world: World):
    await world.submit()
    [claimed] = await world.claim()
    await world.settle(claimed, failed(), decide=requeue(after_s=1))
    subscription = world.ledger.subscribe("ready")
    world.clock.advance(1)
    await world.ledger.promote_due(limit=1)
    assert await subscription.wait(0) == {"ready"}
    await world.ledger.put_queue(QueueSettings(name="default"))
    assert await subscription.wait(0) == {"ready"}


async def test_many_callers_at_once_are_all_served(world: World):
    jobs: list[NewJob] = [new_job(number) for number in range(300)]
    answers = await asyncio.gather(*(world.ledger.submit([job]) for job in jobs))
    assert all(answer[0].is_new for answer in answers)  # type: ignore[union-attr]
    assert (await world.ledger.list_queues())[0].queued == 300
