"""Pages that move by themselves: each looked at page is read and rendered once for all who look at it.

Viewers of the same address with the same rights share one task. It renders again when a topic of the page fired, at
most every PACE_S, and behind that on a timer; what came out the same is not sent. A viewer that is slow gets the
newest state and never a queue of old ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import structlog

from runyard.api.services import ApiContext
from runyard.model.errors import LedgerUnavailable, RunyardError
from runyard.model.token import Scope

PACE_S = 0.4
TIMER_S = 3.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sight:
    """What is looked at, and with which rights: what viewers must have in common to share a rendering."""

    address: str
    tenants: tuple[str, ...] | None
    scope: Scope


@dataclass(frozen=True, slots=True)
class Rendered:
    """The moving part of a page as one server-sent event, and the topics on which it hangs."""

    frame: bytes
    topics: tuple[str, ...]


Render = Callable[[], Awaitable[Rendered]]


class LiveSights:
    """All that is being looked at in this process."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._shared: dict[Sight, _Shared] = {}

    @property
    def looked_at(self) -> frozenset[Sight]:
        return frozenset(self._shared)

    async def follow(self, sight: Sight, render: Render) -> AsyncGenerator[bytes, None]:
        """The page as it is, then as it becomes. `render` reads with the rights that the sight names. Raises what the
        first reading raises."""
        shared = self._shared.get(sight)
        if shared is None:
            shared = self._shared[sight] = _Shared(self._context, render)
        shared.viewers += 1
        try:
            seen = b""
            while True:
                frame = await shared.newer_than(seen)
                yield frame
                seen = frame
        finally:
            shared.viewers -= 1
            if not shared.viewers:
                shared.stop()
                if self._shared.get(sight) is shared:
                    del self._shared[sight]


class _Shared:
    def __init__(self, context: ApiContext, render: Render) -> None:
        self._context = context
        self._render = render
        self._frame = b""
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self.viewers = 0
        self._task = asyncio.create_task(self._go_on())

    async def newer_than(self, seen: bytes) -> bytes:
        while self._frame == seen:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        return self._frame

    def stop(self) -> None:
        self._task.cancel()

    async def _go_on(self) -> None:
        topics: tuple[str, ...] = ("events",)
        while True:
            subscription = self._context.services.ledger.subscribe(*topics)
            try:
                rendered = await self._render()
                self._show(rendered.frame)
                topics = rendered.topics
                await asyncio.sleep(PACE_S)
                await subscription.wait(TIMER_S)
            except LedgerUnavailable as error:
                _log.warning("page_waits", error=error.message)
                await asyncio.sleep(TIMER_S)
            except RunyardError as error:  # what was looked at is gone, or no longer ours to see
                self._end(error)
                return
            except Exception as error:  # ours to mend; without a word its viewers would wait for ever
                _log.exception("page_failed")
                self._end(error)
                return
            finally:
                subscription.close()

    def _end(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _show(self, frame: bytes) -> None:
        if frame != self._frame:
            self._frame = frame
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def page_frame(html: str) -> bytes:
    """An event `page` that carries it, line by line."""
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"event: page\n{lines}\n".encode()
