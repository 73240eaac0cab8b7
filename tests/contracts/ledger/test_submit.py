from runyard.ledger.port import Submitted
from runyard.model.errors import Conflict, NotFound, TooMany
from runyard.model.job import JobState, Limits, Step
from runyard.model.queue import QueueSettings, TenantSettings
from runyard.model.requirements import Requirements
from tests.contracts.ledger.world import World, new_job


async def test_a_submitted_job_is_queued_and_found_by_tenant_and_id(world: World):
    job = await world.submit("build", tenant="acme", labels={"team": "search"})
    assert job.state == JobState.QUEUED
    assert await world.ledger.find_job("acme", "build") == job
    assert await world.ledger.get_job(job.uid) == job
    assert await world.ledger.find_job("other", "build") is None


async def test_a_job_comes_back_as_it_was_sent(world: World):
    steps = (Step(name="a", command=("echo", "ü\n"), env={"K": "v"}, timeout_s=1.5, dir="src"),)
    requirements = Requirements(cpu_millis=500, labels={"gpu": "a100"}, network="open", arch="arm64")
    job = await world.submit(steps=steps, requirements=requirements, priority=-7, outputs={"o": "out.txt"})
    read = await world.job(job.uid)
    assert read.spec.steps == steps
    assert read.spec.requirements == requirements
    assert read.spec.priority == -7


async def test_the_same_id_with_the_same_spec_is_answered_with_the_job_that_is_there(world: World):
    job = await world.submit("build")
    [again] = await world.try_submit("build")
    assert again == Submitted(job=job, is_new=False)
    assert (await world.ledger.list_queues())[0].queued == 1


async def test_the_same_id_with_another_spec_is_a_conflict(world: World):
    await world.submit("build")
    [again] = await world.try_submit("build", spec_hash="another")
    assert isinstance(again, Conflict)


async def test_two_tenants_may_use_the_same_id(world: World):
    await world.submit("build", tenant="a")
    await world.submit("build", tenant="b")


async def test_one_failing_job_does_not_hold_back_the_others_of_its_batch(world: World):
    answers = await world.ledger.submit([new_job(1), new_job(2, queue="nowhere"), new_job(3)])
    assert isinstance(answers[0], Submitted)
    assert isinstance(answers[1], NotFound)
    assert isinstance(answers[2], Submitted)


async def test_a_batch_may_hold_the_same_job_twice(world: World):
    first, second = await world.ledger.submit([new_job(1, id="x"), new_job(2, id="x")])
    assert isinstance(first, Submitted)
    assert second == Submitted(job=first.job, is_new=False)


async def test_queued_max_of_a_queue_is_counted_on_within_a_batch(world: World):
    await world.ledger.put_queue(QueueSettings(name="default", queued_max=2))
    answers = await world.ledger.submit([new_job(n) for n in range(3)])
    assert [type(answer) for answer in answers] == [Submitted, Submitted, TooMany]
    repeated = await world.ledger.submit([new_job(0)])
    assert isinstance(repeated[0], Submitted)  # whatever the limits


async def test_queued_max_of_a_tenant_counts_over_its_queues(world: World):
    await world.ledger.put_queue(QueueSettings(name="other"))
    await world.ledger.put_tenant(TenantSettings(name="acme", queued_max=1))
    await world.submit(tenant="acme", queue="other")
    [answer] = await world.try_submit(tenant="acme")
    assert isinstance(answer, TooMany)
    await world.submit(tenant="free")


async def test_a_claim_makes_room_below_queued_max(world: World):
    await world.ledger.put_queue(QueueSettings(name="default", queued_max=1))
    await world.submit()
    await world.claim()
    await world.submit()


async def test_a_tenant_exists_by_its_first_job(world: World):
    assert await world.ledger.get_tenant("acme") is None
    await world.submit(tenant="acme")
    tenant = await world.ledger.get_tenant("acme")
    assert tenant is not None
    assert tenant.queued == 1


async def test_a_queue_limit_sets_a_deadline(world: World):
    job = await world.submit(limits=Limits(queue_s=60))
    assert job.queue_deadline_at == world.clock.now() + 60
    assert await world.ledger.next_due_at() == world.clock.now() + 60
