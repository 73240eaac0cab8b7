"""A pool's one owner: taking it, keeping it, and knowing when it is lost (DESIGN: one owner at a time, by epochs).

The holder judges its own lease by CLOCK_BOOTTIME, counted from before it asked, so that it stops acting no later than
the ledger lets another in, whatever the wall clock does and however long the answer took.
"""

from __future__ import annotations

import asyncio

import structlog

from runyard.ledger.port import Ledger
from runyard.model.clock import Clock
from runyard.model.errors import Fenced, LedgerUnavailable, RunyardError
from runyard.model.pool import Fence

LEASE_S = 15.0
ASK_AGAIN_S = 1.0

log = structlog.get_logger()


class PoolLease:
    """One holding of a pool, from `take` to `release` or its loss."""

    def __init__(
        self, pool: str, *, ledger: Ledger, owner: str, clock: Clock, lease_s: float = LEASE_S
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._owner = owner
        self._clock = clock
        self._lease_s = lease_s
        self._valid_until = 0.0
        self._fence: Fence | None = None
        self.lost = asyncio.Event()
        self._log = log.bind(pool=pool)

    @property
    def fence(self) -> Fence:
        """What every write for the pool carries. Only after `take`."""
        assert self._fence is not None
        return self._fence

    async def take(self) -> None:
        """Returns once the pool is ours, however long another owns it."""
        while True:
            asked_at = self._clock.boottime()
            try:
                fence = await self._ledger.acquire_pool(self._pool, owner=self._owner, lease_s=self._lease_s)
            except LedgerUnavailable as error:
                self._log.error("ledger_unavailable", error=error.message)
                fence = None
            if fence is not None:
                self._fence = fence
                self._valid_until = asked_at + self._lease_s
                self._log.info("pool_acquired", epoch=fence.epoch)
                return
            await asyncio.sleep(min(self._lease_s / 3, ASK_AGAIN_S))

    async def keep(self) -> None:
        """Renews until the pool is lost."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            asked_at = self._clock.boottime()
            try:
                await self._ledger.renew_pool(self.fence, lease_s=self._lease_s)
            except Fenced:
                self.lose()
                return
            except LedgerUnavailable as error:
                self._log.error("lease_not_renewed", error=error.message)
            else:
                self._valid_until = asked_at + self._lease_s

    def holds(self) -> bool:
        """Whether we may still act for the pool."""
        return not self.lost.is_set() and self._clock.boottime() < self._valid_until

    def outlasts(self, seconds: float) -> bool:
        """Whether it holds for that long still, if nobody renews it."""
        return self.holds() and self._clock.boottime() + seconds < self._valid_until

    def now(self) -> float:
        """This service's wall clock, for what people read."""
        return self._clock.now()

    def lose(self) -> None:
        """Some write was fenced: another owns the pool."""
        self.lost.set()

    async def release(self) -> None:
        """Lets another take the pool at once. Silent when it is lost already or the ledger does not answer: then the
        lease runs out by itself."""
        if self.holds():
            try:
                await self._ledger.release_pool(self.fence)
            except RunyardError as error:
                self._log.warning("pool_not_released", error=error.message)
