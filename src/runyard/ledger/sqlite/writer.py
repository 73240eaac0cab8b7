"""The one writer: runs callers' functions in shared transactions and answers each once the shared commit is durable.

One fsync serves everyone who asked while the last one ran (group commit), which is where ten times the throughput of
a transaction per caller comes from. A SAVEPOINT per caller keeps one caller's failure from the others; a failure of
the database itself (full disk, I/O) fails the batch, and the next batch is tried afresh.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from runyard.ledger.sqlite.connection import is_database_wide, unavailable
from runyard.ledger.sqlite.transaction import Transaction
from runyard.ledger.subscriptions import Hub
from runyard.model.clock import Clock
from runyard.model.errors import LedgerUnavailable

BATCH_MAX = 256

T = TypeVar("T")
Statement = Callable[[Transaction], T]


@dataclass(slots=True)
class _Call:
    function: Statement[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def resolve(self) -> None:
        if self.future.done():
            return  # its caller was cancelled; what it asked for is done all the same
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Owns the writing connection. With `is_threaded` False each call runs at once in the caller's thread, alone in
    its transaction: for virtual time, where no thread may be waited for."""

    def __init__(
        self, connection: sqlite3.Connection, *, path: str, clock: Clock, hub: Hub, is_threaded: bool = True
    ) -> None:
        self._connection = connection
        self._path = path
        self._clock = clock
        self._hub = hub
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        if is_threaded:
            self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
            self._thread.start()

    async def run(self, function: Statement[T]) -> T:
        """What `function` returned, once it is committed; or what it raised, with nothing of it written."""
        if self._is_closed:
            raise LedgerUnavailable(f"ledger {self._path}: it is closed", cure="open it first")
        if self._thread is None:
            return self._run_inline(function)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put(_Call(function, future))
        return await future

    def close(self) -> None:
        """Returns once everything that was asked before is committed. Blocks: not for the event loop."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
        self._connection.close()

    # -- without the thread ---------------------------------------------------------------------------------------
    def _run_inline(self, function: Statement[T]) -> T:
        transaction = Transaction(self._connection, self._clock.now())
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            result = function(transaction)
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error) and is_database_wide(error):
                raise unavailable(self._path, error) from error
            raise
        self._hub.fire(transaction.topics)
        return result

    # -- the thread -----------------------------------------------------------------------------------------------
    def _work(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._next_batch()
            if not batch:
                continue
            try:
                topics = self._commit(batch)
            except Exception as error:  # the loop's one place: whatever it was, its callers are told
                self._roll_back()
                for call in batch:
                    call.result, call.error = None, self._translate(error)
            else:
                self._hub.fire(topics)
            _answer(batch)

    def _next_batch(self) -> tuple[list[_Call], bool]:
        """Waits for one call and takes what came with it; False with it once the end was asked for."""
        call = self._calls.get()
        batch: list[_Call] = []
        while call is not None:
            batch.append(call)
            if len(batch) == BATCH_MAX:
                return batch, True
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _commit(self, batch: list[_Call]) -> set[str]:
        """Runs the batch in one transaction and returns the topics to fire. Raises what concerns all of it."""
        topics: set[str] = set()
        now = self._clock.now()
        self._connection.execute("BEGIN IMMEDIATE")
        for call in batch:
            topics |= self._run_in_savepoint(call, now)
        self._connection.execute("COMMIT")
        return topics

    def _run_in_savepoint(self, call: _Call, now: float) -> set[str]:
        transaction = Transaction(self._connection, now)
        self._connection.execute("SAVEPOINT caller")
        try:
            call.result = call.function(transaction)
        except Exception as error:
            if is_database_wide(error) or not self._connection.in_transaction:
                raise
            call.error = error
            self._connection.execute("ROLLBACK TO caller")
            transaction.topics.clear()
        self._connection.execute("RELEASE caller")
        return transaction.topics

    def _roll_back(self) -> None:
        """SQLite itself rolls back on some errors; on the others it waits to be told."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _translate(self, error: Exception) -> Exception:
        return unavailable(self._path, error) if isinstance(error, sqlite3.Error) else error


def _answer(batch: list[_Call]) -> None:
    """One wake-up of the loop for the whole batch."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Call]] = {}
    for call in batch:
        by_loop.setdefault(call.future.get_loop(), []).append(call)
    for loop, calls in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, calls)


def _resolve(calls: list[_Call]) -> None:
    for call in calls:
        call.resolve()
