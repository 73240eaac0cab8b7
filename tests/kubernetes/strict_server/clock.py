"""The server's time: one that a test advances, and one that follows the event loop for tests of real processes."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

Action = Callable[[], None]


class Clock(Protocol):
    def now(self) -> datetime: ...

    def call_later(self, delay_s: float, action: Action) -> None: ...


class FakeClock:
    """Stands still until `advance`. What falls due runs in order, each at its own moment."""

    def __init__(self, start: datetime = datetime(2026, 11, 24, 12, tzinfo=UTC)) -> None:
        self._now = start
        self._timers: list[tuple[datetime, int, Action]] = []
        self._numbers = itertools.count()

    def now(self) -> datetime:
        return self._now

    def call_later(self, delay_s: float, action: Action) -> None:
        heapq.heappush(self._timers, (self._now + timedelta(seconds=delay_s), next(self._numbers), action))

    def advance(self, seconds: float) -> None:
        until = self._now + timedelta(seconds=seconds)
        while self._timers and self._timers[0][0] <= until:
            at, _, action = heapq.heappop(self._timers)
            self._now = max(self._now, at)
            action()
        self._now = until


class LoopClock:
    """The machine's time. `close` forgets every timer, so that nothing acts after the server is gone."""

    def __init__(self) -> None:
        self._handles: set[asyncio.TimerHandle] = set()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def call_later(self, delay_s: float, action: Action) -> None:
        def due() -> None:
            self._handles.discard(handle)
            action()

        handle = asyncio.get_running_loop().call_later(delay_s, due)
        self._handles.add(handle)

    def close(self) -> None:
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()


def seconds_text(at: datetime) -> str:
    """metav1.Time: RFC 3339 to the second, as in every object."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def nanoseconds_text(at: datetime) -> str:
    """RFC3339NanoFixed, as in front of a log line: always nine digits."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
