import asyncio
import sqlite3
import threading
from collections.abc import Callable

import pytest

from runyard.ledger.sqlite.reader import Reader
from runyard.ledger.sqlite.transaction import Transaction
from runyard.ledger.sqlite.writer import BATCH_MAX, Writer
from runyard.ledger.subscriptions import Hub
from runyard.model.errors import LedgerUnavailable
from tests.contracts.ledger.world import ManualClock


def put(name: str) -> Callable[[Transaction], str]:
    def statement(tx: Transaction) -> str:
        tx.execute("INSERT INTO tenants (name, weight, is_configured) VALUES (:name, 1, 0)", name=name)
        tx.fire(name)
        return name

    return statement


def put_large(tx: Transaction) -> None:
    tx.execute("INSERT INTO job_specs (spec) VALUES (:spec)", spec="x" * 1_000_000)


def names(tx: Transaction) -> set[str]:
    return {row["name"] for row in tx.rows("SELECT name FROM tenants")}


class Held:
    """Keeps the writer busy inside a call, so that what is asked meanwhile becomes its next batch."""

    def __init__(self, writer: Writer) -> None:
        self._has_begun = threading.Event()
        self._may_end = threading.Event()
        self._task = asyncio.create_task(writer.run(self._call))

    def _call(self, tx: Transaction) -> None:
        self._has_begun.set()
        assert self._may_end.wait(30)

    async def __aenter__(self) -> None:
        await asyncio.to_thread(self._has_begun.wait, 30)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # let the tasks of the test ask
        self._may_end.set()
        await self._task


async def test_callers_share_a_commit(writer: Writer, connection: sqlite3.Connection):
    commits: list[str] = []
    async with Held(writer):
        connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        tasks = [asyncio.create_task(writer.run(put(f"t{n}"))) for n in range(BATCH_MAX + 44)]
    assert await asyncio.gather(*tasks) == [f"t{n}" for n in range(BATCH_MAX + 44)]
    connection.set_trace_callback(None)
    assert len(commits) == 3  # the one that held it, a full batch, the rest


async def test_a_failing_caller_takes_nothing_of_the_others_with_it(writer: Writer, hub: Hub):
    def broken(tx: Transaction) -> None:
        put("broken")(tx)
        raise ZeroDivisionError

    subscription = hub.subscribe("before", "broken", "after")
    async with Held(writer):
        tasks = [asyncio.create_task(writer.run(call)) for call in (put("before"), broken, put("after"))]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[::2] == ["before", "after"]
    assert isinstance(answers[1], ZeroDivisionError)
    assert await writer.run(names) == {"before", "after"}
    assert await subscription.wait(0) == {"before", "after"}


async def test_a_broken_constraint_is_its_callers_own_error(writer: Writer):
    async with Held(writer):
        tasks = [asyncio.create_task(writer.run(call)) for call in (put("a"), put("a"), put("b"))]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[1], sqlite3.IntegrityError)
    assert await writer.run(names) == {"a", "b"}


async def test_a_full_disk_fails_the_whole_batch_and_the_writer_goes_on(
    writer: Writer, connection: sqlite3.Connection, hub: Hub
):
    subscription = hub.subscribe("a", "b")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    async with Held(writer):
        connection.execute(f"PRAGMA max_page_count = {pages + 5}")
        tasks = [asyncio.create_task(writer.run(call)) for call in (put("a"), put_large, put("b"))]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, LedgerUnavailable)
        assert "ledger.db" in answer.message
        assert "full" in answer.message
        assert "space" in (answer.cure or "")
    assert await subscription.wait(0) == frozenset()
    connection.execute("PRAGMA max_page_count = 1000000")
    await writer.run(put_large)
    await writer.run(put("later"))
    assert await writer.run(names) == {"later"}


async def test_a_caller_that_went_away_disturbs_nobody(writer: Writer):
    async with Held(writer):
        gone, stays = (asyncio.create_task(writer.run(put(name))) for name in ("gone", "stays"))
        await asyncio.sleep(0)
        gone.cancel()
    assert await stays == "stays"
    assert await writer.run(names) == {"gone", "stays"}


async def test_closing_answers_everyone_first_and_refuses_the_rest(writer: Writer):
    tasks = [asyncio.create_task(writer.run(put(f"t{n}"))) for n in range(10)]
    await asyncio.sleep(0)
    await asyncio.to_thread(writer.close)
    assert len(await asyncio.gather(*tasks)) == 10
    with pytest.raises(LedgerUnavailable):
        await writer.run(names)


async def test_without_its_thread_a_call_runs_at_once_and_fails_alone(
    connection: sqlite3.Connection, path: str, hub: Hub
):
    writer = Writer(connection, path=path, clock=ManualClock(), hub=hub, is_threaded=False)
    threads: list[threading.Thread] = []
    await writer.run(lambda tx: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]
    await writer.run(put("a"))
    with pytest.raises(sqlite3.IntegrityError):
        await writer.run(put("a"))
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(LedgerUnavailable):
        await writer.run(put_large)
    assert await writer.run(names) == {"a"}
    writer.close()


async def test_a_long_read_holds_up_no_write_and_sees_none_of_it(writer: Writer, path: str):
    reader = Reader(path, clock=ManualClock())
    await writer.run(put("before"))
    has_begun, may_end = threading.Event(), threading.Event()

    def listing(tx: Transaction) -> set[str]:
        before = names(tx)
        has_begun.set()
        assert may_end.wait(30)
        assert names(tx) == before
        return before

    reading = asyncio.create_task(reader.run(listing))
    await asyncio.to_thread(has_begun.wait, 30)
    await writer.run(put("meanwhile"))
    assert await reader.run(names) == {"before", "meanwhile"}  # the other reader is free
    may_end.set()
    assert await reading == {"before"}
    await asyncio.to_thread(reader.close)


async def test_a_reader_cannot_write(writer: Writer, path: str):
    reader = Reader(path, clock=ManualClock())
    with pytest.raises(LedgerUnavailable):
        await reader.run(put("a"))
    await asyncio.to_thread(reader.close)
    with pytest.raises(LedgerUnavailable):
        await reader.run(names)
