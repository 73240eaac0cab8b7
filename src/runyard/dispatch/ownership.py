"""A pool's one owner: taking it, keeping it, and knowing when it is lost (DESIGN: one owner at a time, by epochs).

The holder judges its own lease by CLOCK_BOOTTIME, counted from before it asked, so that it stops acting no later than
the ledger lets another in, whatever the wall clock does and however long the answer took.
"""

from __future__ import annotations

import asyncio

import structlog

from runyard.dispatch.renewal import ASKS_PER_LEASE, Renewal
from runyard.ledger.port import Ledger, Renewer
from runyard.model.clock import Clock
from runyard.model.errors import LedgerUnavailable, RunyardError
from runyard.model.pool import Fence

LEASE_S = 15.0
ASK_AGAIN_S = 1.0
ASK_AGAIN_S_MIN = 0.01

log = structlog.get_logger()


class PoolLease:
    """One holding of a pool, from `take` to `release` or its loss. What ran out is lost, also where nobody took it
    meanwhile: it is taken anew, at another epoch."""

    def __init__(
        self,
        pool: str,
        *,
        ledger: Ledger,
        owner: str,
        clock: Clock,
        renewal: Renewal,
        lease_s: float = LEASE_S,
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._owner = owner
        self._clock = clock
        self._renewal = renewal
        self._valid_until = 0.0
        self._fence: Fence | None = None
        self.lease_s = lease_s
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
                fence = await self._ledger.acquire_pool(self._pool, owner=self._owner, lease_s=self.lease_s)
                free_in_s = ASK_AGAIN_S if fence is not None else await self._free_in_s()
            except LedgerUnavailable as error:
                self._log.error("ledger_unavailable", error=error.message)
                fence, free_in_s = None, ASK_AGAIN_S
            if fence is not None:
                self._fence = fence
                self._valid_until = asked_at + self.lease_s
                self._log.info("pool_acquired", epoch=fence.epoch)
                return
            await asyncio.sleep(min(self.lease_s / 3, ASK_AGAIN_S, max(free_in_s, ASK_AGAIN_S_MIN)))

    async def _free_in_s(self) -> float:
        """When the other's lease ends, if it is not renewed: it is asked for right then."""
        pool = await self._ledger.get_pool(self._pool)
        if pool is None or pool.lease_until is None:
            return ASK_AGAIN_S
        return pool.lease_until - await self._ledger.now()

    async def keep(self) -> None:
        """Renews until the pool is lost."""
        await self._renewal.keep(self)

    async def renew(self, renewer: Renewer) -> None:
        """Asks once for more time. Raises Fenced where another owns the pool, LedgerUnavailable, TimeoutError."""
        asked_at = self._clock.boottime()
        async with asyncio.timeout(self.lease_s / ASKS_PER_LEASE):
            await renewer.renew_pool(self.fence, lease_s=self.lease_s)
        self._valid_until = asked_at + self.lease_s

    def holds(self) -> bool:
        """Whether we may still act for the pool."""
        return self.remaining_s() > 0

    def remaining_s(self) -> float:
        return 0.0 if self.lost.is_set() else max(0.0, self._valid_until - self._clock.boottime())

    def outlasts(self, seconds: float) -> bool:
        """Whether it holds for that long still, if nobody renews it."""
        return self.remaining_s() > seconds

    def now(self) -> float:
        """This service's wall clock, for what people read."""
        return self._clock.now()

    def lose(self) -> None:
        """Another owns the pool, or may do so."""
        self.lost.set()

    async def release(self) -> None:
        """Lets another take the pool at once. Silent when it is lost already or the ledger does not answer: then the
        lease runs out by itself."""
        if self.holds():
            try:
                await self._ledger.release_pool(self.fence)
            except RunyardError as error:
                self._log.warning("pool_not_released", error=error.message)
