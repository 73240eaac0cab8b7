"""Renewals of leases over one connection of their own, for a thread with a loop of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import msgspec

from runyard.ledger import refusals
from runyard.ledger.postgresql.database import Database
from runyard.model.pool import Fence


class PostgresqlRenewer:
    """Connects at the first call, and anew after each one that failed or was given up: what is left of such a
    connection is not known, and a cut one may be silent for minutes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def renew_pool(self, fence: Fence, *, lease_s: float) -> None:
        document = {"pool": fence.pool, "epoch": fence.epoch, "lease_s": lease_s, "at": self._database.at()}
        async with self._turn, self._database.translating():
            answer = await self._ask(msgspec.json.encode(document).decode())
        match answer.get("refused"):
            case None:
                return
            case "fenced":
                raise refusals.fenced(fence, answer["epoch"])
            case _:
                raise refusals.released(fence)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ask(self, document: str) -> dict[str, Any]:
        try:
            if self._connection is None:
                self._connection = await self._database.connect()
            text = await self._connection.fetchval("SELECT renew_pool($1::jsonb)", document)
        except BaseException:
            await self.close()
            raise
        answer: dict[str, Any] = msgspec.json.decode(text)
        return answer
