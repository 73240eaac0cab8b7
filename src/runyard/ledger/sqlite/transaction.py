"""What a statement function is given: the open transaction, its moment, and the topics that fire once it committed."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Transaction:
    """One caller's part of a transaction. `now` is the database's clock, read once for all of it."""

    connection: sqlite3.Connection
    now: float
    topics: set[str] = field(default_factory=set)

    def execute(self, sql: str, **values: Any) -> int:
        """Returns the number of rows that changed."""
        return self.connection.execute(sql, values).rowcount

    def insert(self, sql: str, **values: Any) -> int:
        """Returns the new row's number."""
        row_id = self.connection.execute(sql, values).lastrowid
        assert row_id is not None
        return row_id

    def row(self, sql: str, **values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.connection.execute(sql, values).fetchone()
        return row

    def one(self, sql: str, **values: Any) -> sqlite3.Row:
        """The row that must be there."""
        row = self.row(sql, **values)
        assert row is not None, sql
        return row

    def rows(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        return self.connection.execute(sql, values).fetchall()

    def fire(self, *topics: str) -> None:
        self.topics.update(topics)
