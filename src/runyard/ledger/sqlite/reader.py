"""Reads on snapshots of their own, so that a long listing never holds up a write, nor a write a listing."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runyard.ledger.sqlite.connection import connect_reader, is_database_wide, unavailable
from runyard.ledger.sqlite.transaction import Transaction
from runyard.ledger.sqlite.writer import Statement
from runyard.model.clock import Clock
from runyard.model.errors import LedgerUnavailable

READERS = 2  # one may be in a long listing while the other answers

T = TypeVar("T")


class Reader:
    """A few threads over as many connections."""

    def __init__(self, path: str, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._idle: list[sqlite3.Connection] = []
        try:
            for _ in range(READERS):
                self._idle.append(connect_reader(path))
        except sqlite3.Error as error:
            self._close_connections()
            raise unavailable(path, error) from error
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(
            READERS, thread_name_prefix="ledger-reader"
        )

    async def run(self, function: Statement[T]) -> T:
        if self._threads is None:
            raise LedgerUnavailable(f"ledger {self._path}: it is closed", cure="open it first")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, function)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        self._close_connections()

    def _read(self, function: Statement[T]) -> T:
        connection = self._idle.pop()  # as many as threads, and list operations are atomic
        try:
            connection.execute("BEGIN")
            return function(Transaction(connection, self._clock.now()))
        except sqlite3.Error as error:
            raise (unavailable(self._path, error) if is_database_wide(error) else error) from error
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")  # nothing was written
            self._idle.append(connection)

    def _close_connections(self) -> None:
        while self._idle:
            self._idle.pop().close()
