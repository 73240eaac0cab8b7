"""Many services, pools and connections at once: limits hold, nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg

from runyard.ledger.port import Ledger, Submitted
from runyard.model.job import NewJob
from runyard.model.queue import QueueSettings, TenantSettings
from tests.contracts.ledger.world import BIG, SMALL, new_job
from tests.ledger.postgresql.conftest import Start
from tests.ledger.postgresql.workers import audit, own, request, running_at_most, work

QUEUES = ("default", "left", "right")
TENANTS = ("a", "b", "c", "d")


def mixed_jobs(count: int) -> list[NewJob]:
    return [
        new_job(
            number,
            queue=QUEUES[number % 3],
            tenant=TENANTS[number // 3 % 4],
            requirements=BIG if number % 5 == 0 else SMALL,
        )
        for number in range(count)
    ]


async def submit_all(ledger: Ledger, jobs: Sequence[NewJob], *, width: int) -> None:
    async def submit_some(first: int) -> None:
        for new in jobs[first::width]:
            [answer] = await ledger.submit([new])
            assert isinstance(answer, Submitted)

    await asyncio.gather(*(submit_some(first) for first in range(width)))


async def test_limits_of_queue_and_tenant_hold_while_many_pools_claim(
    start: Start, session: asyncpg.Connection
):
    services = [await start() for _ in range(3)]
    await services[0].put_queue(QueueSettings(name="left", running_max=3))
    await services[0].put_queue(QueueSettings(name="right", tenant_running_max=2))
    for tenant, running_max in (("a", 1), ("b", 3)):
        await services[0].put_tenant(TenantSettings(name=tenant, running_max=running_max))
    jobs = mixed_jobs(360)
    settled: list[int] = []

    async def own_and_work(number: int, served: tuple[str, ...]) -> None:
        service = services[number % 3]
        fence = await own(service, f"pool-{number}", queues=served)
        done = await work(service, fence, width=5, is_done=lambda: is_over)
        settled.append(done)

    async def submit_and_wait() -> None:
        nonlocal is_over
        await asyncio.gather(*(submit_all(services[n], jobs[n::3], width=4) for n in range(3)))
        while await session.fetchval("SELECT count(*) FROM jobs WHERE ended_at IS NULL"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # the audit's session is told nothing
        is_over = True

    is_over = False
    served = [("*",), ("left", "right"), ("default",), ("right",), ("left", "default"), ("*",)]
    async with asyncio.timeout(60):
        await asyncio.gather(
            submit_and_wait(), *(own_and_work(number, queues) for number, queues in enumerate(served))
        )
    assert sum(settled) == len(jobs)
    most = await running_at_most(services[0], {new.uid: (new.spec.queue, new.spec.tenant) for new in jobs})
    assert most["queue left"] <= 3
    assert most["tenant a"] <= 1
    assert most["tenant b"] <= 3
    assert max(most[f"right/{tenant}"] for tenant in TENANTS) <= 2
    await audit(session)


async def test_a_job_submitted_while_its_tenant_runs_dry_is_never_left_asleep(
    start: Start, session: asyncpg.Connection
):
    """research A3: the claimer puts the tenant to rest while a submit that saw it awake is still to commit."""
    submitter, claimer = await start(), await start()
    fence = await own(claimer, "local")
    got = 0

    async def submit() -> None:
        for number in range(300):
            await submitter.submit([new_job(number, tenant=f"t{number % 2}")])

    async def claim() -> None:
        nonlocal got
        while got < 300:
            got += len(await claimer.claim(request(fence, *range(got, got + 3))))

    async with asyncio.timeout(30):
        await asyncio.gather(submit(), claim())
    await audit(session)


async def test_two_services_that_submit_the_same_job_make_it_once(start: Start, session: asyncpg.Connection):
    one, two = await start(), await start()
    first = [new_job(number) for number in range(100)]
    second = [new_job(1000 + number, id=f"job-{number}") for number in reversed(range(100))]
    answers = await asyncio.gather(
        *(one.submit([new]) for new in first), *(two.submit([new]) for new in second)
    )
    made = [answer for [answer] in answers if isinstance(answer, Submitted)]
    assert len(made) == 200
    assert sum(answer.is_new for answer in made) == 100
    assert len({answer.job.uid for answer in made}) == 100
    await audit(session)


async def test_queued_max_holds_while_several_services_submit(start: Start, session: asyncpg.Connection):
    services = [await start() for _ in range(3)]
    await services[0].put_queue(QueueSettings(name="default", queued_max=10))
    answers = await asyncio.gather(
        *(services[number % 3].submit([new_job(number, tenant=f"t{number % 7}")]) for number in range(90))
    )
    assert sum(isinstance(answer, Submitted) for [answer] in answers) == 10
    await audit(session)


async def test_limits_changed_while_many_claim_leave_no_work_asleep(
    start: Start, session: asyncpg.Connection
):
    one, two = await start(), await start()
    for queue in QUEUES:
        await one.put_queue(QueueSettings(name=queue))
    jobs = mixed_jobs(240)
    is_over = False

    async def change() -> None:
        nonlocal is_over
        turn = 0
        while await session.fetchval("SELECT count(*) FROM jobs WHERE ended_at IS NULL") or turn < 20:
            limit = (None, 1, 2)[turn % 3]
            await two.put_tenant(TenantSettings(name=TENANTS[turn % 4], running_max=limit))
            await one.put_queue(QueueSettings(name=QUEUES[turn % 3], tenant_running_max=limit))
            turn += 1
        is_over = True

    async def own_and_work(service: Ledger, pool: str, *queues: str) -> int:
        return await work(service, await own(service, pool, queues=queues), width=4, is_done=lambda: is_over)

    await submit_all(one, jobs, width=8)
    async with asyncio.timeout(60):
        counts = await asyncio.gather(
            own_and_work(one, "p1", "*"),
            own_and_work(two, "p2", "left", "right"),
            own_and_work(two, "p3", "*"),
            change(),
        )
    assert sum(count for count in counts if count is not None) == len(jobs)
    await audit(session)


async def test_cancels_and_claims_of_the_same_jobs_meet_without_a_contradiction(
    start: Start, session: asyncpg.Connection
):
    one, two = await start(), await start()
    fence = await own(one, "local")
    jobs = [new_job(number, tenant=f"t{number % 5}") for number in range(150)]
    await one.submit(jobs)
    claimed: list[str] = []

    async def claim() -> None:
        for first in range(0, 150, 3):
            got = await one.claim(request(fence, first, first + 1, first + 2))
            claimed.extend(taken.job.uid for taken in got)

    answers = (await asyncio.gather(claim(), *(two.request_cancel(new.uid) for new in reversed(jobs))))[1:]
    states = {job.uid: job.state for job in answers}
    assert {uid for uid, state in states.items() if state == "canceling"} == set(claimed)
    assert set(states.values()) <= {"canceled", "canceling"}
    await audit(session)


async def test_services_that_expire_and_promote_at_once_do_each_job_once(
    start: Start, session: asyncpg.Connection
):
    services = [await start() for _ in range(3)]
    await services[0].submit([new_job(number, tenant=f"t{number % 3}") for number in range(60)])
    await session.execute("UPDATE jobs SET queue_deadline_at = 1")
    expired = await asyncio.gather(*(service.expire_queued(limit=40) for service in services * 2))
    uids = [uid for some in expired for uid in some]
    assert len(uids) == len(set(uids)) == 60
    await audit(session)


async def test_a_claim_over_more_queues_than_one_call_locks_fills_every_slot(
    start: Start, session: asyncpg.Connection
):
    ledger = await start()
    for number in range(150):
        await ledger.put_queue(QueueSettings(name=f"q{number}"))
    await ledger.submit([new_job(number, queue=f"q{number}") for number in range(150)])
    fence = await own(ledger, "local", slots=140)
    claimed = await ledger.claim(request(fence, *range(150)))
    assert len({one.attempt.slot for one in claimed}) == len({one.job.queue for one in claimed}) == 140
    await audit(session)


async def test_a_claim_waits_for_no_tenant_out_of_order_and_goes_on_once_it_is_free(
    start: Start, session: asyncpg.Connection
):
    """It holds b when it needs a: waiting for it could be a deadlock with whoever holds a and waits for b."""
    ledger = await start()
    await ledger.submit([new_job(1, tenant="b"), new_job(2, tenant="a", priority=1)])
    fence = await own(ledger, "local")
    await session.execute("UPDATE shares SET vtime = 5 WHERE tenant = 'a'")
    await session.execute("UPDATE fair SET vtime = 5 WHERE tenant = 'a'")
    async with session.transaction():
        await session.fetchval("SELECT lock_tenants('{a}')")
        claiming = asyncio.create_task(ledger.claim(request(fence, 0, 1)))
        await asyncio.wait({claiming}, timeout=0.1)
        async with asyncio.timeout(1):
            await session.fetchval("SELECT lock_tenants('{b}')")  # it has let go of it
        assert not claiming.done()
    assert [one.job.tenant for one in await claiming] == ["b", "a"]
    await audit(session)
