"""A lock per attempt, there while somebody holds it or waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runyard.model.attempt import AttemptKey


class KeyLocks:
    def __init__(self) -> None:
        self._locks: dict[AttemptKey, asyncio.Lock] = {}
        self._users: Counter[AttemptKey] = Counter()

    @asynccontextmanager
    async def hold(self, key: AttemptKey) -> AsyncIterator[None]:
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] += 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
