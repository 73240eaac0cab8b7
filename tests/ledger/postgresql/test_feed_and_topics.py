"""What services hear of each other: the feed in order of commit, and the wake-up."""

from __future__ import annotations

import asyncio
import json

import asyncpg

from runyard.ledger.postgresql.jobs import _document
from runyard.model.queue import QueueSettings
from tests.contracts.ledger.world import new_job
from tests.ledger.postgresql.conftest import Start
from tests.ledger.postgresql.workers import own, request


async def submit_in(session: asyncpg.Connection, number: int, **spec: object) -> None:
    document = json.dumps({"jobs": [_document(new_job(number, **spec))], "sender": "test"}, default=dict)
    await session.fetchval("SELECT submit($1::jsonb)", document)


async def test_no_event_appears_behind_one_that_was_read_already(start: Start, session: asyncpg.Connection):
    """The first to write is the last to commit: a sequence taken without a lock would appear behind the reader."""
    ledger = await start()
    await ledger.put_queue(QueueSettings(name="other"))
    async with session.transaction():
        await submit_in(session, 1, tenant="first")
        behind = asyncio.create_task(ledger.submit([new_job(2, queue="other", tenant="second")]))
        await asyncio.wait({behind}, timeout=0.15)
        assert await ledger.list_events(after=0, limit=10) == []
        assert await ledger.event_bounds() == (1, 0)
    await behind
    events = await ledger.list_events(after=0, limit=10)
    assert [(event.sequence, event.tenant) for event in events] == [(1, "first"), (2, "second")]


async def test_a_reader_that_follows_many_writers_misses_nothing(start: Start):
    writers = [await start() for _ in range(3)]
    for number in range(3):
        await writers[0].put_queue(QueueSettings(name=f"q{number}"))
    reader = await start()
    seen: list[str] = []

    async def follow() -> None:
        after = 0
        while len(seen) < 240:
            for event in await reader.list_events(after=after, limit=7):
                assert event.sequence == after + 1
                after = event.sequence
                seen.append(event.uid)

    async with asyncio.timeout(30):
        await asyncio.gather(
            follow(),
            *(writers[n % 3].submit([new_job(n, queue=f"q{n % 3}", tenant=f"t{n}")]) for n in range(240)),
        )
    assert len(set(seen)) == 240


async def test_a_rolled_back_write_leaves_no_hole_in_the_feed(start: Start, session: asyncpg.Connection):
    ledger = await start()
    transaction = session.transaction()
    await transaction.start()
    await submit_in(session, 1)
    await transaction.rollback()
    await ledger.submit([new_job(2)])
    assert [event.sequence for event in await ledger.list_events(after=0, limit=10)] == [1]


async def test_another_service_is_woken_and_the_own_notice_is_not_heard_twice(start: Start):
    one, two = await start(), await start()
    here, there = one.subscribe("ready"), two.subscribe("ready", "events", "job:0000000000000001", "pool:x")
    await one.submit([new_job(1)])
    assert await here.wait(0) == {"ready"}
    heard = set(await there.wait(5))
    assert heard == {"ready", "events", "job:0000000000000001"}
    await two.put_queue(QueueSettings(name="other"))  # comes after all that the first has told itself
    await here.wait(5)
    assert await here.wait(0.05) == frozenset()


async def test_a_service_whose_listener_was_lost_looks_at_everything_once_it_is_back(
    start: Start, session: asyncpg.Connection
):
    deaf, other = await start(), await start()
    fence = await own(other, "local")
    subscription = deaf.subscribe("ready", "pool:local")
    await subscription.wait(0.2)
    killed = await session.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    )
    assert killed == 2
    heard: set[str] = set()
    async with asyncio.timeout(10):
        while heard != {"ready", "pool:local"}:
            heard |= await subscription.wait(5)
    await other.submit([new_job(1)])
    assert "ready" in await subscription.wait(5)
    assert len(await other.claim(request(fence))) == 1


async def test_a_large_batch_tells_of_each_of_its_jobs(start: Start):
    """A notice holds less than 8,000 bytes."""
    one, two = await start(), await start()
    last = two.subscribe(f"job:{999:016x}")
    await one.submit([new_job(number) for number in range(1000)])
    assert await last.wait(5)
