"""The wake-up from other services: one connection that listens, and comes back whenever it is lost.

What was told while it was away is not known, so on every return everybody is woken once. A service's own notices are
left out: it has woken its subscribers itself, right after the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import structlog

from runyard.ledger.subscriptions import Hub

CHANNEL = "runyard"
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0
PROBE_S = 10.0
"""How often it is asked whether it still lives: a connection cut off without a word would be silent for ever."""

log = structlog.get_logger()

Connect = Callable[[], Awaitable[asyncpg.Connection]]


class Listener:
    def __init__(self, connect: Connect, *, hub: Hub, sender: str, where: str) -> None:
        self._connect = connect
        self._hub = hub
        self._sender = sender
        self._where = where
        self._connection: asyncpg.Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once it listens."""
        self._connection = await self._listen()
        self._task = asyncio.create_task(self._stay())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _listen(self) -> asyncpg.Connection:
        connection = await self._connect()
        try:
            await connection.add_listener(CHANNEL, self._hear)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _stay(self) -> None:
        while True:
            if self._connection is not None:
                await self._wait_for_loss(self._connection)
                log.warning("ledger_listener_lost", ledger=self._where)
            self._connection = await self._return()
            log.info("ledger_listener_back", ledger=self._where)
            self._hub.fire_all()

    async def _wait_for_loss(self, connection: asyncpg.Connection) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        while not connection.is_closed():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_S):
                    await lost.wait()
                return
            try:
                await connection.fetchval("SELECT 1", timeout=PROBE_S)
            except Exception as error:  # whatever it is, the cure is the same
                log.warning("ledger_listener_silent", ledger=self._where, error=type(error).__name__)
                connection.terminate()

    async def _return(self) -> asyncpg.Connection:
        delay_s = RETRY_FIRST_S
        while True:
            try:
                return await self._listen()
            except Exception as error:  # the loop's one place: without it this service would be deaf for good
                log.warning("ledger_listener_refused", ledger=self._where, error=type(error).__name__)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        sender, *topics = str(payload).split("\n")
        if sender != self._sender:
            self._hub.fire(topics)
