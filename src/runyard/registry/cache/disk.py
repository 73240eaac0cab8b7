"""Threads of the cache's own for its disk: whatever else the process does in threads must not hold the cache up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 8
T = TypeVar("T")


class Disk:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="registry-cache")

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """Runs in a thread. A caller who is cancelled leaves it running."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def close(self) -> None:
        self._threads.shutdown(wait=True)
