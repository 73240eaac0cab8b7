"""The history of queues and pools, and what shows that a queue stands still."""

from __future__ import annotations

from runyard.ledger.port import Ledger
from runyard.model.history import ALL, HistoryRow, HistorySum, Subject
from runyard.model.pool import Budget
from runyard.model.queue import QueueSettings, TenantSettings
from tests.contracts.ledger.world import PLENTY, ManualClock, World, requeue

BEGIN = 1_000_020  # a multiple of 15 and of 60


def a_gauge(bucket: int, amount: float, *, name: str = ALL, figure: str = "queued") -> HistoryRow:
    return HistoryRow(subject=Subject.QUEUE, name=name, bucket=bucket, figure=figure, amount=amount)


def a_count(bucket: int, amount: float, *, pool: str = "local", writer: str = "one") -> HistoryRow:
    return HistoryRow(
        subject=Subject.POOL,
        name=pool,
        bucket=bucket,
        figure="phase:step",
        amount=amount,
        seconds=2 * amount,
        writer=writer,
    )


async def read(ledger: Ledger, subject: Subject, name: str, step_s: int = 60) -> list[HistorySum]:
    return await ledger.read_history(subject, name, begin=BEGIN, end=BEGIN + 120, step_s=step_s)


async def test_a_stretch_of_time_shows_the_highest_of_a_gauge(ledger: Ledger) -> None:
    await ledger.add_history([a_gauge(BEGIN, 3), a_gauge(BEGIN + 15, 9), a_gauge(BEGIN + 60, 1)])
    found = await read(ledger, Subject.QUEUE, ALL)
    assert [(one.at, one.figure, one.highest) for one in found] == [
        (BEGIN, "queued", 9.0),
        (BEGIN + 60, "queued", 1.0),
    ]


async def test_a_gauge_that_two_services_write_stands_once(ledger: Ledger) -> None:
    await ledger.add_history([a_gauge(BEGIN, 3)])
    await ledger.add_history([a_gauge(BEGIN, 4), a_gauge(BEGIN + 15, 5)])
    found = await read(ledger, Subject.QUEUE, ALL, step_s=15)
    assert [one.highest for one in found] == [3.0, 5.0]


async def test_counts_of_two_owners_in_one_bucket_add_up_and_a_repeat_changes_nothing(ledger: Ledger) -> None:
    for _ in range(2):
        await ledger.add_history([a_count(BEGIN, 2), a_count(BEGIN, 5, writer="two")])
    await ledger.add_history([a_count(BEGIN + 15, 1, pool="other")])
    [together] = await read(ledger, Subject.POOL, "local")
    assert (together.amount, together.seconds) == (7.0, 14.0)
    [alone] = await read(ledger, Subject.POOL, "other")
    assert alone.amount == 1.0


async def test_what_lies_outside_the_time_asked_for_is_not_read(ledger: Ledger) -> None:
    await ledger.add_history(
        [a_gauge(BEGIN - 15, 3), a_gauge(BEGIN + 120, 9), a_gauge(BEGIN, 1, name="default")]
    )
    assert await read(ledger, Subject.QUEUE, ALL) == []


async def test_the_oldest_buckets_go_first_so_many_at_a_time(ledger: Ledger) -> None:
    await ledger.add_history(
        [a_gauge(BEGIN + 15 * n, n, name=name) for n in range(4) for name in (ALL, "default")]
    )
    assert await ledger.delete_history(before=BEGIN + 45, buckets=2) == 4
    assert await ledger.delete_history(before=BEGIN + 45, buckets=2) == 2
    assert await ledger.delete_history(before=BEGIN + 45, buckets=2) == 0
    assert [one.at for one in await read(ledger, Subject.QUEUE, ALL, step_s=15)] == [BEGIN + 45]


async def test_a_claim_says_when_its_queue_was_served(
    ledger: Ledger, world: World, clock: ManualClock
) -> None:
    await ledger.put_queue(QueueSettings(name="other"))
    await world.submit_many(2)
    before = await ledger.get_queue("default")
    assert before is not None
    assert before.last_claimed_at is None
    clock.advance(7)
    await world.claim(1)
    after, other = await ledger.get_queue("default"), await ledger.get_queue("other")
    assert after is not None
    assert after.last_claimed_at == clock.now()
    assert other is not None
    assert other.last_claimed_at is None


async def test_what_a_limit_or_a_backoff_holds_back_is_not_eligible(ledger: Ledger, world: World) -> None:
    async def is_eligible() -> bool:
        [queue] = await ledger.list_queues()
        return queue.has_eligible

    assert not await is_eligible()
    await ledger.put_tenant(TenantSettings(name="default", running_max=1))
    await world.submit_many(2)
    assert await is_eligible()
    [claimed] = await world.claim(1)
    assert not await is_eligible()
    await world.settle(claimed, decide=requeue(after_s=30))
    assert await is_eligible()  # the other one
    await world.claim(1)
    assert not await is_eligible()


async def test_the_job_that_was_ready_longest_is_found_over_all_classes(
    ledger: Ledger, world: World, clock: ManualClock
) -> None:
    assert await ledger.oldest_ready("default") is None
    first = await world.submit()
    clock.advance(1)
    await world.submit(priority=5)
    clock.advance(1)
    await world.submit()
    assert await ledger.oldest_ready("default") == first.uid
    await world.claim(2, budget=Budget(cpu_millis=PLENTY.cpu_millis, memory_bytes=PLENTY.memory_bytes))
    left = await ledger.oldest_ready("default")
    assert left is not None
    assert left != first.uid
