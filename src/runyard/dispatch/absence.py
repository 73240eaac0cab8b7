"""Whether an attempt that may exist does not: the one end of following what is refused again and again.

A refusal alone proves nothing (I4): it may run all the same. But a place that refuses to make it, and that twice lists
all it has without it, has never had it, or has it no more. The listings lie so far apart that a create on its way when
the first was made would be in the second.
"""

from __future__ import annotations

import asyncio

import structlog

from runyard.model.errors import ProviderError
from runyard.providers.port import Provider, ResourceListing

APART_S_MIN = 60.0
"""More than a lease and the deadline of a call: so long may an earlier owner's create be on its way."""
LIST_DEADLINE_S = 30.0

log = structlog.get_logger()


class Absence:
    """Of one name. `apart_s`: how far apart the two listings are, at least."""

    def __init__(self, provider: Provider, name: str, *, apart_s: float) -> None:
        self._provider = provider
        self._name = name
        self._apart_s = max(apart_s, APART_S_MIN)
        self._absent_since_s: float | None = None

    def doubt(self) -> None:
        """A call went unanswered: it may have made it."""
        self._absent_since_s = None

    async def is_proven(self) -> bool:
        """Looks once more; what cannot be listed proves nothing, either way."""
        loop = asyncio.get_running_loop()
        asked_at_s = loop.time()
        listing = await self._list()
        if listing is None:
            return False
        if any(resource.name == self._name for resource in listing.resources):
            self.doubt()
            return False
        if not listing.is_complete:
            return False
        if self._absent_since_s is None:
            self._absent_since_s = loop.time()
        return asked_at_s - self._absent_since_s >= self._apart_s

    async def is_listed(self) -> bool:
        """Whether it is there for certain."""
        listing = await self._list()
        return listing is not None and any(resource.name == self._name for resource in listing.resources)

    async def _list(self) -> ResourceListing | None:
        try:
            async with asyncio.timeout(LIST_DEADLINE_S):
                return await self._provider.list_resources()
        except (ProviderError, TimeoutError):
            return None
        except Exception:  # a bug in a provider: as if it had not answered
            log.exception("listing_failed", resource=self._name)
            return None
