"""Renewals of leases through the one writer, which any thread may ask: SQLite has no second one to offer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runyard.ledger.sqlite import pools
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.pool import Fence

Write = Callable[[Callable[[Transaction], None]], Awaitable[None]]


class SqliteRenewer:
    """Waits for the commit under way, no longer; and never for the service's loop."""

    def __init__(self, write: Write) -> None:
        self._write = write

    async def renew_pool(self, fence: Fence, *, lease_s: float) -> None:
        await self._write(lambda tx: pools.renew_pool(tx, fence, lease_s=lease_s))

    async def close(self) -> None:
        """The writer is the ledger's."""
