"""Ends jobs whose queue deadline passed and wakes those whose retry is due, each at its own moment."""

from __future__ import annotations

import asyncio

import structlog

from runyard.ledger.port import Ledger
from runyard.model.clock import Clock
from runyard.model.errors import LedgerUnavailable

IDLE_S = 1.0
LOOK_AGAIN_S = 0.1
BATCH = 500
LOGGED_MAX = 20
"""Of the jobs that expired, how many one line names."""

log = structlog.get_logger()


class Timekeeper:
    """Any number of services may run one on the same ledger: each of its writes is guarded by the job's own state."""

    def __init__(self, *, ledger: Ledger, clock: Clock, idle_s: float = IDLE_S) -> None:
        self._ledger = ledger
        self._clock = clock
        self._idle_s = idle_s

    async def run(self) -> None:
        subscription = self._ledger.subscribe("ready")
        try:
            while True:
                try:
                    delay_s = await self.tick()
                except LedgerUnavailable as error:
                    log.error("ledger_unavailable", error=error.message)
                    delay_s = IDLE_S
                if await subscription.wait(delay_s):
                    # A new job may bring an earlier deadline; a burst of them is looked at once.
                    await asyncio.sleep(LOOK_AGAIN_S)
        finally:
            subscription.close()

    async def tick(self) -> float:
        """Does what is due. Returns the seconds until it should look again, at most `idle_s`."""
        due_at = await self._ledger.next_due_at()
        now = await self._ledger.now()
        if due_at is None or due_at > now:
            return min(self._idle_s, due_at - now) if due_at is not None else self._idle_s
        expired = await self._ledger.expire_queued(limit=BATCH)
        promoted = await self._ledger.promote_due(limit=BATCH)
        if expired or promoted:
            log.info("jobs_due", expired=len(expired), promoted=promoted, uids=expired[:LOGGED_MAX])
        return 0.0 if len(expired) == BATCH or promoted == BATCH else LOOK_AGAIN_S / 10
