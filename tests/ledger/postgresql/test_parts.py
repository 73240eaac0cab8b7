"""The adapter's parts that need no server: combining, numbering, faults."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from runyard.ledger.postgresql.address import Address
from runyard.ledger.postgresql.batching import Batcher
from runyard.ledger.postgresql.faults import is_unavailable
from runyard.ledger.postgresql.template import numbered, suffixed
from runyard.model.errors import LedgerUnavailable


class Wire:
    """What a batch is sent through: one at a time, each when it is let go."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.free = asyncio.Event()

    async def send(self, items: Sequence[int]) -> list[int | Exception]:
        self.sent.append(list(items))
        await self.free.wait()
        if -1 in items:
            raise LedgerUnavailable("gone")
        if 13 in items:
            raise ZeroDivisionError
        return [KeyError(item) if item == 7 else item * 10 for item in items]


async def test_what_is_asked_while_a_call_is_under_way_goes_in_the_next():
    wire = Wire()
    batcher: Batcher[int, int] = Batcher(wire.send, size_max=3)
    first = asyncio.create_task(batcher.ask(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = [asyncio.create_task(batcher.ask(number)) for number in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    wire.free.set()
    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40, 50]
    assert wire.sent == [[1], [2, 3, 4], [5]]
    await batcher.close()


async def test_one_item_that_cannot_be_written_does_not_fail_the_others():
    wire = Wire()
    wire.free.set()
    batcher: Batcher[int, int] = Batcher(wire.send, size_max=9)
    answers = await asyncio.gather(*(batcher.ask(n) for n in (1, 7, 13)), return_exceptions=True)
    assert answers[0] == 10
    assert [type(answer) for answer in answers[1:]] == [KeyError, ZeroDivisionError]


async def test_a_database_that_is_away_fails_the_batch_together():
    wire = Wire()
    wire.free.set()
    batcher: Batcher[int, int] = Batcher(wire.send, size_max=9)
    answers = await asyncio.gather(*(batcher.ask(n) for n in (1, -1)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [LedgerUnavailable, LedgerUnavailable]
    assert wire.sent == [[1, -1]]


async def test_a_cancelled_caller_holds_up_nobody():
    wire = Wire()
    batcher: Batcher[int, int] = Batcher(wire.send, size_max=9)
    first, second = asyncio.create_task(batcher.ask(1)), asyncio.create_task(batcher.ask(2))
    await asyncio.sleep(0)
    first.cancel()
    wire.free.set()
    assert await second == 20


def test_names_become_numbers_and_casts_stay():
    assert numbered("SELECT :a::text, :b, :a") == ("SELECT $1::text, $2, $1", ("a", "b"))
    assert suffixed("x = :a AND y < :at", {"a": 1}, "3") == ("x = :a_3 AND y < :at", {"a_3": 1})


@pytest.mark.parametrize(
    ("error", "is_away"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.DiskFullError(), True),
        (asyncpg.ReadOnlySQLTransactionError(), True),
        (asyncpg.UniqueViolationError(), False),
        (asyncpg.UndefinedFunctionError(), False),
        (ZeroDivisionError(), False),
    ],
)
def test_what_is_the_databases_fault_is_told_from_what_is_ours(error: Exception, is_away: bool):
    assert is_unavailable(error) == is_away


def test_an_address_is_shown_without_its_password():
    address = Address.parse("postgresql://me:s3cret@db.example:5433/ledger?sslmode=require&password=s3cret")
    assert address.where == "postgresql://me@db.example:5433/ledger"
    assert "s3cret" not in repr(address)
