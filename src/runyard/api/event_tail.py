"""The newest events, read from the ledger once and encoded once for all who watch.

Each viewer goes through the tail at its own pace by its own cursor; one that is slower than the tail is long reads
from the ledger until it caught up. So a viewer costs a cursor, and a slow one holds nobody up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from runyard.api.answers import event_answer
from runyard.api.server_sent import encode_event
from runyard.ledger.port import Ledger
from runyard.model.errors import LedgerUnavailable
from runyard.model.event import JobEvent

TAIL_EVENTS_MAX = 5_000
PAGE_EVENTS_MAX = 500
TIMER_S = 2.0
BURST_S = 0.02
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    sequence: int
    tenant: str
    frame: bytes


class EventTail:
    """Follows the ledger while anyone watches."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._events: deque[EncodedEvent] = deque(maxlen=TAIL_EVENTS_MAX)
        self._begin = 0  # the tail holds every event above this sequence
        self._end = 0  # up to this one
        self._grown = asyncio.Event()
        self._viewers = 0
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def viewing(self) -> AsyncIterator[None]:
        """One more viewer meanwhile. The tail begins at the newest event of the first one's moment."""
        self._viewers += 1
        try:
            if self._task is None:
                _, newest = await self._ledger.event_bounds()
                if self._task is None:
                    self._begin = self._end = newest
                    self._task = asyncio.create_task(self._follow())
            yield
        finally:
            self._viewers -= 1
            if self._viewers == 0 and self._task is not None:
                self._task.cancel()
                self._task = None
                self._events.clear()

    async def read(self, after: int, tenants: tuple[str, ...] | None) -> tuple[int, list[bytes]]:
        """(the cursor to go on from, the frames of the events above `after`): some of them, at once, maybe none."""
        begin = self._begin
        if after < begin:
            events = await self._ledger.list_events(after=after, limit=PAGE_EVENTS_MAX, tenants=tenants)
            if len(events) == PAGE_EVENTS_MAX:
                return events[-1].sequence, [encode(event).frame for event in events]
            reached = events[-1].sequence if events else after
            return max(begin, reached), [encode(event).frame for event in events]
        fresh: list[EncodedEvent] = []
        for event in reversed(self._events):
            if event.sequence <= after:
                break
            fresh.append(event)
        wanted = [event.frame for event in reversed(fresh) if tenants is None or event.tenant in tenants]
        return max(after, self._end), wanted

    async def wait(self, after: int, timeout_s: float) -> None:
        """Until there is an event above `after`, or the time is over."""
        if self._end > after:
            return
        grown = self._grown
        try:
            async with asyncio.timeout(timeout_s):
                await grown.wait()
        except TimeoutError:
            pass

    async def _follow(self) -> None:
        subscription = self._ledger.subscribe("events")
        loop = asyncio.get_running_loop()
        try:
            while True:
                read_at = loop.time()
                try:
                    has_more = await self._append_page()
                except LedgerUnavailable as error:
                    _log.warning("event_tail_waits", error=error.message)
                    has_more = False
                if not has_more and await subscription.wait(TIMER_S):
                    # The first of a burst is told at once, what follows closely is told together.
                    await asyncio.sleep(read_at + BURST_S - loop.time())
        finally:
            subscription.close()

    async def _append_page(self) -> bool:
        events = await self._ledger.list_events(after=self._end, limit=PAGE_EVENTS_MAX)
        if not events:
            return False
        for event in events:
            if len(self._events) == TAIL_EVENTS_MAX:
                self._begin = self._events[0].sequence
            self._events.append(encode(event))
        self._end = events[-1].sequence
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()
        return len(events) == PAGE_EVENTS_MAX


def encode(event: JobEvent) -> EncodedEvent:
    data = event_answer(event).model_dump_json().encode()
    return EncodedEvent(event.sequence, event.tenant, encode_event(data, cursor=str(event.sequence)))
