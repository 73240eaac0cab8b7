"""Whether the daemon answers: asked every few seconds, so that nobody who asks for room has to wait for a hung one."""

from __future__ import annotations

import asyncio

from runyard.model.errors import ProviderError, RunyardError
from runyard.providers.docker.client import DockerClient

EVERY_S = 5.0
PING_S = 5.0


class Health:
    """`complaint` is what is wrong, in a sentence; empty where the daemon answers."""

    def __init__(self, client: DockerClient, *, every_s: float = EVERY_S, ping_s: float = PING_S) -> None:
        self._client = client
        self._every_s = every_s
        self._ping_s = ping_s
        self.complaint = ""
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    def note(self, words: str) -> None:
        """Somebody else had no answer; the next ping decides."""
        self.complaint = words

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._client.ping(self._ping_s)
                self.complaint = ""
            except (ProviderError, RunyardError) as error:
                self.complaint = error.message
