"""One watch for a pool and a kind of object: what there is by name, kept up to date for whoever follows an attempt.

Who listens is told of states, not of events: whatever was missed while the connection was down shows as the object's
next state, and an object that a fresh listing no longer has is told as deleted, in the last state that was seen of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import structlog

from runyard.model.errors import ProviderError
from runyard.providers.kubernetes.client import Document, Kind, KubernetesClient, RefusedStream
from runyard.providers.kubernetes.refusals import of_status

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 5.0

Listener: TypeAlias = Callable[[Document, bool], None]
"""An object's newest state, and whether it is gone."""

log = structlog.get_logger()


class _Expired(Exception):
    """The server keeps no history from our version on: list anew."""


class SharedWatch:
    """`objects` are those with `labels`, by name. `listen` is called in the loop and must not block."""

    def __init__(self, client: KubernetesClient, kind: Kind, *, labels: str, listen: Listener) -> None:
        self._client = client
        self._kind = kind
        self._labels = labels
        self._listen = listen
        self._version: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._synced = asyncio.Event()
        self._broken_since: float | None = time.monotonic()
        self._trouble: ProviderError | None = None
        self.objects: dict[str, Document] = {}

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def broken_for_s(self) -> float:
        """For how long it has not been connected; 0 while it is."""
        return 0.0 if self._broken_since is None else time.monotonic() - self._broken_since

    @property
    def trouble(self) -> ProviderError | None:
        """Why not, as far as known."""
        return self._trouble if self._broken_since is not None else None

    @property
    def has_synced(self) -> bool:
        return self._synced.is_set()

    async def synced(self) -> None:
        """Returns once a first listing was had."""
        await self._synced.wait()

    # -- inside ---------------------------------------------------------------------------------------------------
    async def _watch(self) -> None:
        delay_s = RETRY_FIRST_S
        while True:
            connected_at = time.monotonic()
            try:
                await self._connect_once()
            except _Expired:
                self._version = None
            except ProviderError as error:
                if isinstance(error, RefusedStream) and error.refusal.is_expired:
                    self._version = None
                else:
                    self._note_broken(error)
            else:
                self._note_broken(None)
            if time.monotonic() - connected_at > RETRY_MAX_S:
                delay_s = RETRY_FIRST_S
            await asyncio.sleep(delay_s)
            delay_s = min(RETRY_MAX_S, delay_s * 2)

    async def _connect_once(self) -> None:
        """Until the connection ends. Raises _Expired, ProviderError."""
        if self._version is None:
            await self._list()
        assert self._version is not None
        kind, labels = self._kind, self._labels
        async with self._client.watching(kind, labels=labels, version=self._version) as events:
            self._broken_since = None
            await self._take_all(events)

    async def _take_all(self, events: AsyncIterator[Document]) -> None:
        async for event in events:
            what, found = event.get("type"), event.get("object") or {}
            if what == "ERROR":
                refusal = of_status(found)
                if refusal.is_expired:
                    raise _Expired
                log.warning("kubernetes_watch_error", kind=self._kind.name, error=refusal.message)
                return
            self._version = found["metadata"]["resourceVersion"]
            if what in ("ADDED", "MODIFIED"):
                self._note(found)
            elif what == "DELETED":
                self._note_gone(found)

    async def _list(self) -> None:
        listing = await self._client.list(self._kind, labels=self._labels)
        found = {one["metadata"]["name"]: one for one in listing.items}
        for name in self.objects.keys() - found.keys():
            self._note_gone(self.objects[name])
        for one in found.values():
            self._note(one)
        self._version = listing.version
        self._synced.set()

    def _note(self, found: Document) -> None:
        name = found["metadata"]["name"]
        known = self.objects.get(name)
        if known is not None and known["metadata"].get("uid") != found["metadata"].get("uid"):
            self._listen(known, True)  # it was deleted and made again while we did not look
        self.objects[name] = found
        self._listen(found, False)

    def _note_gone(self, found: Document) -> None:
        self.objects.pop(found["metadata"]["name"], None)
        self._listen(found, True)

    def _note_broken(self, error: ProviderError | None) -> None:
        """A watch ends by itself every few minutes; only one that does not come back is worth a word."""
        if self._broken_since is None:
            self._broken_since = time.monotonic()
        if error is not None and (self._trouble is None or self._trouble.message != error.message):
            log.warning("kubernetes_watch_lost", kind=self._kind.name, error=error.message)
        self._trouble = error
