"""What a reading function is given: where to read from, and the moment that it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from runyard.ledger.postgresql.template import numbered


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A connection to read from, and the moment that `at` stands for (None: the database's own clock)."""

    connection: Any
    at: float | None

    async def rows(self, sql: str, **values: Any) -> list[asyncpg.Record]:
        text, names = numbered(sql)
        found: list[asyncpg.Record] = await self.connection.fetch(text, *(values[name] for name in names))
        return found

    async def row(self, sql: str, **values: Any) -> asyncpg.Record | None:
        text, names = numbered(sql)
        found: asyncpg.Record | None = await self.connection.fetchrow(text, *(values[name] for name in names))
        return found

    async def one(self, sql: str, **values: Any) -> asyncpg.Record:
        """The row that must be there."""
        row = await self.row(sql, **values)
        assert row is not None, sql
        return row

    async def execute(self, sql: str, **values: Any) -> int:
        """Returns the number of rows that changed."""
        text, names = numbered(sql)
        tag = await self.connection.execute(text, *(values[name] for name in names))
        return int(tag.rpartition(" ")[2])
