"""Writes the history: every BUCKET_S how much waits and runs, and what this service's pools counted meanwhile.

Any number of services write the same gauges; the first one's stand. What a pool counted is written by who counted it,
under a name of this process's own, so owners that follow each other within one bucket add up and a repeated write does
not. What was counted since the last bucket dies with the process: fifteen seconds of a chart, and of nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import structlog

from runyard.dispatch.telemetry import EndedAttempt, NoTelemetry
from runyard.ledger.port import Ledger
from runyard.model.errors import LedgerUnavailable, RunyardError
from runyard.model.history import ALL, BUCKET_S, SIGN_OF_LIFE_S, HistoryRow, Subject
from runyard.model.pool import Pool
from runyard.model.queue import Queue

QUEUES_MAX = 100
POOLS_MAX = 100
PENDING_MAX = 20_000
LAST_WRITE_S = 1.0

log = structlog.get_logger()

Key = tuple[Subject, str, str]
"""Subject, name, figure."""


class Historian(NoTelemetry):
    """A Telemetry that remembers a bucket's ends, and the loop that writes them down. `writer` is unique to this
    process."""

    def __init__(self, *, ledger: Ledger, writer: str) -> None:
        self._ledger = ledger
        self._process = writer
        self._life = 0
        self._newest = 0
        self._alive_at = 0
        self._counts: Counter[Key] = Counter()
        self._seconds: dict[Key, float] = {}
        self._was_something: set[Key] = set()
        self._pending: list[HistoryRow] = []

    # -- what is counted ------------------------------------------------------------------------------------------
    def attempt_ended(self, ended: EndedAttempt) -> None:
        outcome = f"outcome:{ended.outcome.kind.value}"
        self._counts[Subject.QUEUE, ended.queue, outcome] += 1
        for name in (ended.pool, ALL):
            self._counts[Subject.POOL, name, outcome] += 1
            for phase, seconds in ended.phases.items():
                key = (Subject.POOL, name, f"phase:{phase}")
                self._counts[key] += 1
                self._seconds[key] = self._seconds.get(key, 0.0) + seconds

    # -- the loop -------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        try:
            while True:
                try:
                    delay_s = await self.tick()
                except LedgerUnavailable as error:
                    log.error("ledger_unavailable", error=error.message)
                    delay_s = float(BUCKET_S)
                await asyncio.sleep(delay_s)
        finally:
            with contextlib.suppress(RunyardError, TimeoutError):
                async with asyncio.timeout(LAST_WRITE_S):
                    await self._close()

    async def tick(self) -> float:
        """Writes the bucket that ends now. Returns the seconds until the next one ends."""
        now = await self._ledger.now()
        bucket = int(now // BUCKET_S) * BUCKET_S
        if bucket != self._newest:
            self._begin(bucket)
            self._note_gauges(bucket, await self._ledger.list_queues(), await self._ledger.list_pools())
            self._note_counts(bucket)
            await self._write()
        return bucket + BUCKET_S - now

    def _begin(self, bucket: int) -> None:
        """A clock that was set back brings buckets again that we wrote into: another name keeps their counts apart."""
        if bucket < self._newest:
            self._life += 1
            self._alive_at = 0
        self._newest = bucket

    async def _close(self) -> None:
        """What was counted since the last bucket, for the one that has begun."""
        if self._counts:
            self._note_counts(self._newest + BUCKET_S)
        await self._write()

    async def _write(self) -> None:
        """What could not be written is kept as it is and written next time: the same rows, since they may be there."""
        del self._pending[:-PENDING_MAX]
        if self._pending:
            await self._ledger.add_history(self._pending)
            self._pending = []

    # -- rows -----------------------------------------------------------------------------------------------------
    def _note_gauges(self, bucket: int, queues: list[Queue], pools: list[Pool]) -> None:
        """A gauge is written while it is not zero, once when it becomes zero, and that of all queues now and then, as a
        sign that somebody looked: an idle service writes little, and a gap means that none was there."""
        figures = dict(_gauges(queues, pools))
        something = {key for key, amount in figures.items() if amount}
        due = something | self._was_something
        if bucket - self._alive_at >= SIGN_OF_LIFE_S:
            self._alive_at = bucket
            due |= {key for key in figures if key[1] == ALL}
        for subject, name, figure in sorted(due):
            amount = figures.get((subject, name, figure), 0)
            self._pending.append(
                HistoryRow(subject=subject, name=name, bucket=bucket, figure=figure, amount=amount)
            )
        self._was_something = something

    def _note_counts(self, bucket: int) -> None:
        for key, count in _of_busiest_queues(self._counts).items():
            subject, name, figure = key
            self._pending.append(
                HistoryRow(
                    subject=subject,
                    name=name,
                    bucket=bucket,
                    figure=figure,
                    amount=count,
                    seconds=self._seconds.get(key, 0.0),
                    writer=f"{self._process}/{self._life}",
                )
            )
        self._counts.clear()
        self._seconds.clear()


def _of_busiest_queues(counts: Mapping[Key, int]) -> Mapping[Key, int]:
    """All but those of queues beyond the QUEUES_MAX in which most ended."""
    ends: Counter[str] = Counter()
    for (subject, name, _), count in counts.items():
        if subject is Subject.QUEUE:
            ends[name] += count
    busiest = {name for name, _ in ends.most_common(QUEUES_MAX)}
    return {key: count for key, count in counts.items() if key[0] is not Subject.QUEUE or key[1] in busiest}


def _gauges(queues: list[Queue], pools: list[Pool]) -> Iterator[tuple[Key, int]]:
    """Of all queues together, of the busiest ones, and of pools; so many of them that a bucket stays small."""
    yield from _queue_gauges(ALL, queues)
    for queue in heapq.nlargest(QUEUES_MAX, queues, key=lambda one: one.queued + one.starting + one.running):
        yield from _queue_gauges(queue.settings.name, [queue])
    for pool in heapq.nlargest(POOLS_MAX, pools, key=lambda one: one.starting + one.running):
        name = pool.settings.name
        used: Mapping[str, int] = {"starting": pool.starting, "running": pool.running}
        if any(used.values()):
            used = {**used, "slots": pool.settings.slots}
        for figure, amount in used.items():
            yield (Subject.POOL, name, figure), amount


def _queue_gauges(name: str, queues: Iterable[Queue]) -> Iterator[tuple[Key, int]]:
    listed = list(queues)
    yield (Subject.QUEUE, name, "queued"), sum(queue.queued for queue in listed)
    yield (Subject.QUEUE, name, "starting"), sum(queue.starting for queue in listed)
    yield (Subject.QUEUE, name, "running"), sum(queue.running for queue in listed)
