"""The ledger's rows as they stand, read past the ledger: what checks it must not trust it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

FINAL = frozenset({"succeeded", "failed", "canceled", "timed_out", "lost", "refused"})


class JobRow(NamedTuple):
    uid: str
    state: str
    queue: str
    tenant: str
    class_key: str
    is_ready: int
    attempts: int
    infrastructure_failures: int
    failures: int
    unseen_tries: int
    cancel_requested_at: float | None
    not_before: float | None
    started_at: float | None
    ended_at: float | None
    reason: str | None
    outputs: str


class AttemptRow(NamedTuple):
    uid: str
    number: int
    pool: str
    slot: int
    epoch: int
    state: str
    outcome: str | None
    charged: float

    @property
    def name(self) -> str:
        return f"runyard-{self.uid}-{self.number}"

    @property
    def is_ended(self) -> bool:
        return self.state == "ended"


class PoolRow(NamedTuple):
    name: str
    epoch: int
    owner: str | None
    lease_until: float | None
    is_paused: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`vtimes` by (queue, tenant); `owed` by (pool, queue); `samples` by class; `pools` by name."""

    jobs: dict[str, JobRow]
    attempts: dict[str, AttemptRow]
    vtimes: dict[tuple[str, str], float]
    owed: dict[tuple[str, str], float]
    samples: dict[str, int]
    pools: dict[str, PoolRow]


class Reader:
    """Reads on the ledger's own connection, between its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self._cursor.row_factory = None
        self._connection = connection
        self._changes = -1

    def has_news(self) -> bool:
        """Whether anything was written since the last time it was asked."""
        changes = self._connection.total_changes
        is_new, self._changes = changes != self._changes, changes
        return is_new

    def rows(self, sql: str) -> list[Any]:
        return self._cursor.execute(sql).fetchall()

    def snapshot(self) -> Snapshot:
        jobs = self.rows(f"SELECT {', '.join(JobRow._fields)} FROM jobs")
        attempts = [
            AttemptRow._make(row)
            for row in self.rows(f"SELECT {', '.join(AttemptRow._fields)} FROM attempts")
        ]
        shares = self.rows("SELECT queue, tenant, vtime FROM shares")
        return Snapshot(
            jobs={row[0]: JobRow._make(row) for row in jobs},
            attempts={attempt.name: attempt for attempt in attempts},
            vtimes={(queue, tenant): vtime for queue, tenant, vtime in shares},
            owed={
                (pool, queue): owed
                for pool, queue, owed in self.rows("SELECT pool, queue, owed FROM pool_queues")
            },
            samples=dict(self.rows("SELECT class_key, samples FROM classes")),
            pools=self.pools(),
        )

    def pools(self) -> dict[str, PoolRow]:
        rows = self.rows(f"SELECT {', '.join(PoolRow._fields)} FROM pools ORDER BY name")
        return {row[0]: PoolRow._make(row) for row in rows}

    def miscounts(self, seen: Snapshot) -> list[str]:
        """Every counter of the ledger that differs from counting."""
        counted = _count(seen)
        wrong = []
        for table, columns, keys in _COUNTERS:
            for row in self.rows(f"SELECT {', '.join((*keys, *columns))} FROM {table}"):
                key = row[: len(keys)]
                for column, value in zip(columns, row[len(keys) :], strict=True):
                    real = counted[table, column, key]
                    if value != real:
                        wrong.append(f"{table} {key} says {column} = {value}, counted {real}")
        return wrong


_COUNTERS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("queues", ("queued", "starting", "running"), ("name",)),
    ("tenants", ("queued", "running"), ("name",)),
    ("shares", ("queued", "ready", "running"), ("queue", "tenant")),
    ("lanes", ("ready",), ("queue", "class_key")),
    ("fair", ("ready",), ("queue", "class_key", "tenant")),
    ("pools", ("starting", "running"), ("name",)),
)


def _count(seen: Snapshot) -> Counter[tuple[str, str, tuple[str, ...]]]:
    counted: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
    for job in seen.jobs.values():
        queue, tenant = job.queue, job.tenant
        if job.state == "queued":
            counted.update(
                [
                    ("queues", "queued", (queue,)),
                    ("tenants", "queued", (tenant,)),
                    ("shares", "queued", (queue, tenant)),
                ]
            )
        if job.is_ready:
            counted.update(
                [
                    ("shares", "ready", (queue, tenant)),
                    ("lanes", "ready", (queue, job.class_key)),
                    ("fair", "ready", (queue, job.class_key, tenant)),
                ]
            )
    for attempt in seen.attempts.values():
        if not attempt.is_ended:
            job = seen.jobs[attempt.uid]
            counted.update(
                [
                    ("queues", attempt.state, (job.queue,)),
                    ("pools", attempt.state, (attempt.pool,)),
                    ("tenants", "running", (job.tenant,)),
                    ("shares", "running", (job.queue, job.tenant)),
                ]
            )
    return counted
