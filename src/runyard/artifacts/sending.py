"""Sends what collectors left here to the object store: before an attempt is settled if that can be, else later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from runyard.artifacts.objects import ObjectArtifactStore
from runyard.model.attempt import AttemptKey
from runyard.model.errors import StoreUnavailable

LOOK_EVERY_S = 30.0
WAIT_MAX_S = 60.0
CLEAN_AFTER_S = 3600.0
RETRY_S = 2.0

IsSettled = Callable[[AttemptKey], Awaitable[bool | None]]
"""Whether an attempt is settled; None where the ledger knows no such attempt, which is left alone."""

log = structlog.get_logger()


class ArtifactSender:
    """`before_settle` is called with each attempt that ended; `run` sends what could not be sent then."""

    def __init__(
        self,
        store: ObjectArtifactStore,
        is_settled: IsSettled,
        *,
        wait_max_s: float = WAIT_MAX_S,
        retry_s: float = RETRY_S,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._store = store
        self._is_settled = is_settled
        self._wait_max_s = wait_max_s
        self._retry_s = retry_s
        self._look_every_s = look_every_s

    async def before_settle(self, key: AttemptKey) -> None:
        """Returns once all of it is there, or after `wait_max_s`: a store that is down holds up no queue. Until it is
        sent it is served from here."""
        if not await asyncio.to_thread(self._store.directory(key).is_dir):
            return
        try:
            async with asyncio.timeout(self._wait_max_s):
                while not await self._sent(key):  # noqa: ASYNC110 - the store tells nobody that it is back
                    await asyncio.sleep(self._retry_s)
        except TimeoutError:
            log.error("artifacts_not_sent_in_time", attempt=key.resource_name, waited_s=self._wait_max_s)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._look_every_s)

    async def look(self) -> None:
        """Those of attempts that are settled already; the others have their turn."""
        for key in await asyncio.to_thread(self._store.local.attempts):
            if await self._is_settled(key) and not await self._sent(key):
                return
        await asyncio.to_thread(self._store.local.clean, older_than_s=CLEAN_AFTER_S)

    async def _sent(self, key: AttemptKey) -> bool:
        try:
            await self._store.send(key)
        except StoreUnavailable as error:
            log.warning("artifacts_not_sent", attempt=key.resource_name, error=error.message)
            return False
        except Exception:  # one that cannot be read must not hold up its attempt, nor the others
            log.exception("artifacts_not_sent", attempt=key.resource_name)
        return True
