"""What goes on beside the turns of a pool's owner: stops that are passed on, places that are cleared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from runyard.dispatch.follow import CALL_DEADLINE_S

FINISH_S = 2.0


class Aftermath:
    """`tombstone_s`: how long a far place keeps what is settled, stopped, before it is cleared."""

    def __init__(self, *, lease_s: float) -> None:
        self._tombstone_s = lease_s + CALL_DEADLINE_S
        self._beside: set[asyncio.Task[None]] = set()
        self._tombstones: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._spawn(work, self._beside)

    def spawn_late(self, clear: Callable[[], Awaitable[None]]) -> None:
        """A lease and a deadline later: a create of an old owner that was paused, or is still on its way, collides with
        what is kept instead of starting the attempt again."""
        self._spawn(self._later(clear), self._tombstones)

    async def finish(self) -> None:
        """What goes on gets a moment. The next owner repeats what is cut off, its sweep clears tombstones."""
        if self._beside:
            await asyncio.wait(self._beside, timeout=FINISH_S)
        beside = (*self._beside, *self._tombstones)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)

    async def _later(self, clear: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(self._tombstone_s)
        await clear()

    def _spawn(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
