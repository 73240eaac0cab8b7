"""Watches that queues with eligible work get on, and says so once when one does not, and once when it does again."""

from __future__ import annotations

import asyncio

import structlog

from runyard.ledger.port import Ledger
from runyard.model.errors import LedgerUnavailable
from runyard.policy.explain import explain
from runyard.policy.progress import Stalled, stalled_queues

LOOK_S = 10.0

log = structlog.get_logger()


class ProgressWatch:
    """Any number of services may run one: it only reads, and each says what it sees."""

    def __init__(self, *, ledger: Ledger, look_s: float = LOOK_S) -> None:
        self._ledger = ledger
        self._look_s = look_s
        self._seen: frozenset[str] = frozenset()
        self._told: set[str] = set()

    async def run(self) -> None:
        while True:
            try:
                await self.tick()
            except LedgerUnavailable as error:
                log.error("ledger_unavailable", error=error.message)
            await asyncio.sleep(self._look_s)

    async def tick(self) -> None:
        """One look. A queue is told of when it stood still in the look before too: one that was just resumed, or whose
        oldest retry just fell due, is served in the next moment."""
        now = await self._ledger.now()
        stalled = {one.queue: one for one in stalled_queues(await self._ledger.list_queues(), now)}
        for name in sorted(self._told - stalled.keys()):
            log.info("progress_again", queue=name)
        self._told &= stalled.keys()
        for name in sorted((stalled.keys() & self._seen) - self._told):
            await self._tell(stalled[name], now)
        self._seen = frozenset(stalled)

    async def _tell(self, stalled: Stalled, now: float) -> None:
        uid = await self._ledger.oldest_ready(stalled.queue)
        facts = await self._ledger.wait_facts(uid) if uid is not None else None
        if facts is None:
            return  # it was claimed, or ended, since the look
        self._told.add(stalled.queue)
        log.error(
            "no_progress",
            queue=stalled.queue,
            still_s=round(now - stalled.since, 1),
            job=facts.job.id,
            why=[reason.message for reason in explain(facts)],
        )
