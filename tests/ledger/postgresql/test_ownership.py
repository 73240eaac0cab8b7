"""A pool changes hands while its old owner is in the middle of something."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import asyncpg
import pytest

from runyard.model.errors import Fenced, LedgerUnavailable
from runyard.model.outcome import Usage, lost, succeeded
from runyard.model.pool import Fence, PoolHealth
from tests.contracts.ledger.world import SMALL, finish, new_job
from tests.ledger.postgresql.conftest import Start
from tests.ledger.postgresql.workers import audit, own, request


async def is_held_up(task: asyncio.Task[Any]) -> bool:
    done, _ = await asyncio.wait({task}, timeout=0.15)
    return not done


def started(call: Awaitable[Any]) -> asyncio.Task[Any]:
    return asyncio.ensure_future(call)  # type: ignore[return-value]


async def claim_in(session: asyncpg.Connection, fence: Fence) -> None:
    document = {"pool": fence.pool, "epoch": fence.epoch, "slots": [0], "rooms": {SMALL.class_key(): 1}}
    document |= {"cpu_millis": 10**6, "memory_bytes": 1 << 50, "disk_bytes": None, "sender": "test"}
    answer = json.loads(await session.fetchval("SELECT claim($1::jsonb)", json.dumps(document)))
    assert len(answer["claimed"]) == 1


async def test_a_takeover_waits_for_the_old_owners_claim_and_finds_its_attempt(
    start: Start, session: asyncpg.Connection
):
    old, new = await start(), await start()
    fence = await own(old, "local", owner="old")
    await old.submit([new_job(1)])
    await session.execute("UPDATE leases SET lease_until = 0")
    async with session.transaction():
        await claim_in(session, fence)
        taking = started(new.acquire_pool("local", owner="new", lease_s=30))
        assert await is_held_up(taking)
    taken = await taking
    assert taken is not None
    [found] = await new.list_unfinished(taken)
    assert found.attempt.epoch == fence.epoch


async def test_a_claim_that_waited_for_a_takeover_changes_nothing(start: Start, session: asyncpg.Connection):
    old = await start()
    fence = await own(old, "local", owner="old")
    await old.submit([new_job(number) for number in range(3)])
    [claimed] = await old.claim(request(fence))
    await session.execute("UPDATE leases SET lease_until = 0")
    async with session.transaction():
        document = json.dumps({"name": "local", "owner": "new", "lease_s": 30, "sender": "test"})
        await session.fetchval("SELECT acquire_pool($1::jsonb)", document)
        late = [
            started(old.claim(request(fence, 1))),
            started(old.settle(fence, claimed.attempt.key, succeeded(Usage(wall_s=1.0)), decide=finish)),
            started(old.record_phases(fence, claimed.attempt.key, {"running": 1.0})),
            started(old.set_pool_health(fence, health=PoolHealth.HEALTHY, message="")),
            started(old.renew_pool(fence, lease_s=1000)),
        ]
        assert all([await is_held_up(task) for task in late])
        before = await session.fetch("SELECT * FROM jobs ORDER BY serial")
    for task in late:
        with pytest.raises(Fenced):
            await task
    assert await session.fetch("SELECT * FROM jobs ORDER BY serial") == before
    pool = await old.get_pool("local")
    assert pool is not None
    assert (pool.owner, pool.health) == ("new", PoolHealth.UNOWNED)
    assert await session.fetchval(
        "SELECT lease_until < extract(epoch FROM clock_timestamp()) + 31 FROM leases"
    )
    await audit(session)


async def test_a_renewal_neither_waits_for_a_claim_nor_holds_one_up(
    start: Start, session: asyncpg.Connection
):
    ledger = await start()
    fence = await own(ledger, "local")
    await ledger.submit([new_job(1), new_job(2)])
    async with asyncio.timeout(5):
        async with session.transaction():
            await claim_in(session, fence)
            await ledger.renew_pool(fence, lease_s=30)
        async with session.transaction():
            document = json.dumps({"pool": "local", "epoch": fence.epoch, "lease_s": 30, "sender": "test"})
            await session.fetchval("SELECT renew_pool($1::jsonb)", document)
            assert len(await ledger.claim(request(fence, 1))) == 1


async def test_a_renewal_goes_through_while_every_other_write_is_held_up(
    start: Start, session: asyncpg.Connection
):
    ledger = await start()
    renewer = ledger.renewer()
    fences = [await own(ledger, f"pool-{number}") for number in range(6)]
    await ledger.submit([new_job(1)])
    async with session.transaction():
        await session.fetchval("SELECT lock_queues('{default}')")
        claims = [started(ledger.claim(request(fence))) for fence in fences]
        assert await is_held_up(claims[0])
        async with asyncio.timeout(5):
            for fence in fences:
                await renewer.renew_pool(fence, lease_s=30)
    await renewer.close()
    assert sum(map(len, await asyncio.gather(*claims))) == 1


async def test_who_asks_for_an_owned_pool_holds_up_nobody(start: Start, session: asyncpg.Connection):
    owner, other = await start(), await start()
    fence = await own(owner, "local", owner="owner")
    await owner.submit([new_job(1)])
    async with asyncio.timeout(5), session.transaction():
        await claim_in(session, fence)
        assert await other.acquire_pool("local", owner="other", lease_s=30) is None


async def test_two_services_that_ask_at_once_get_one_owner(start: Start, session: asyncpg.Connection):
    services = [await start() for _ in range(4)]
    await own(services[0], "local", owner="gone")
    await session.execute("UPDATE leases SET lease_until = 0")
    asked = [services[n % 4].acquire_pool("local", owner=f"owner-{n}", lease_s=30) for n in range(12)]
    fences = [fence for fence in await asyncio.gather(*asked) if fence is not None]
    assert [fence.epoch for fence in fences] == [2]


async def test_a_cancel_that_comes_between_decision_and_settle_is_decided_upon(
    start: Start, session: asyncpg.Connection
):
    one, two = await start(), await start()
    fence = await own(one, "local")
    await one.submit([new_job(1)])
    [claimed] = await one.claim(request(fence))
    uid = claimed.job.uid
    seen: list[str] = []
    async with session.transaction():
        await session.fetchval("SELECT lock_queues('{default}')")

        def decide(job, outcome, now):
            seen.append(job.state)
            return finish(job, outcome, now)

        settling = started(one.settle(fence, claimed.attempt.key, lost("gone", was_seen=True), decide=decide))
        assert await is_held_up(settling)
        document = json.dumps({"uid": uid, "reason": None, "sender": "test"})
        await session.fetchval("SELECT request_cancel($1::jsonb)", document)
    job = await settling
    assert job.state == "lost"
    assert seen == ["starting", "canceling"]
    assert [event.state for event in await two.list_events(after=0, limit=9)][-2:] == ["canceling", "lost"]


async def test_a_renewals_connection_that_was_cut_is_made_anew(start: Start, session: asyncpg.Connection):
    ledger = await start()
    fence = await own(ledger, "local")
    renewer = ledger.renewer()
    await renewer.renew_pool(fence, lease_s=30)
    await session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT renew_pool%'"
        " AND pid <> pg_backend_pid()"
    )
    with pytest.raises(LedgerUnavailable):
        await renewer.renew_pool(fence, lease_s=30)
    await renewer.renew_pool(fence, lease_s=30)
    await renewer.close()


async def test_a_renewal_that_was_given_up_spoils_none_after_it(start: Start, session: asyncpg.Connection):
    ledger = await start()
    fence = await own(ledger, "local")
    renewer = ledger.renewer()
    async with session.transaction():
        await session.execute("SELECT * FROM leases FOR UPDATE")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await renewer.renew_pool(fence, lease_s=30)
    await renewer.renew_pool(fence, lease_s=30)
    taken = await ledger.acquire_pool("local", owner="me", lease_s=30)
    assert taken is not None
    with pytest.raises(Fenced):
        await renewer.renew_pool(fence, lease_s=30)
    await renewer.close()
