"""Remembers what the ledger said for a moment, so that a burst of requests asks it once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from runyard.model.clock import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Answers at most `ttl_s` old. Absence is never remembered: what was just made is found at once."""

    def __init__(
        self, load: Callable[[K], Awaitable[V]], *, clock: Clock, ttl_s: float, entries_max: int = 1000
    ) -> None:
        self._load = load
        self._clock = clock
        self._ttl_s = ttl_s
        self._entries_max = entries_max
        self._entries: dict[K, tuple[float, V]] = {}

    async def get(self, key: K) -> V:
        entry = self._entries.get(key)
        if entry is not None and self._clock.boottime() - entry[0] < self._ttl_s:
            return entry[1]
        return await self.refresh(key)

    async def refresh(self, key: K) -> V:
        """What holds now."""
        asked_at = self._clock.boottime()  # before the question: an answer is as old as its question
        value = await self._load(key)
        if value is None:
            self._entries.pop(key, None)
            return value
        if len(self._entries) >= self._entries_max:
            self._entries.clear()
        self._entries[key] = (asked_at, value)
        return value

    def forget(self) -> None:
        self._entries.clear()
