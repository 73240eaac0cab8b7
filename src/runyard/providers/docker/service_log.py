"""Follows what one service prints into the attempt's log, until its container has ended."""

from __future__ import annotations

import asyncio
import contextlib

from runyard.host.services.words import LAST_BYTES, last_lines
from runyard.logs.layout import STREAMS
from runyard.model.errors import RunyardError
from runyard.providers.docker.client import DockerClient, Missing, NameTaken
from runyard.providers.docker.reading import AttemptLog, joined
from runyard.providers.port import RunContext

_PAUSE_S = 0.5
DRAIN_S = 10.0


class ServiceLog:
    """Reads from the beginning each time: what is kept already stays as it is. Done when the container has ended and
    all of its log was read."""

    def __init__(
        self,
        client: DockerClient,
        context: RunContext,
        container: str,
        key: str,
        *,
        bytes_max: int,
        mends_lines: bool,
    ) -> None:
        self._client = client
        self._context = context
        self._container = container
        self._key = key
        self._bytes_max = bytes_max
        self._mends_lines = mends_lines
        self._last = dict.fromkeys(STREAMS, b"")
        self.task = asyncio.create_task(self._follow())

    async def last_words(self) -> str:
        """Of one that has ended, or is waited for in vain; of stderr where it wrote there."""
        await asyncio.wait({self.task}, timeout=0 if await self._is_running() else DRAIN_S)
        for stream in reversed(STREAMS):
            lines = last_lines(self._last[stream])
            if lines:
                return f"; its last words: {lines}"
        return ""

    async def _follow(self) -> None:
        while True:
            try:
                had_ended = not await self._is_running()
                log = await self._read()
                if had_ended:
                    for stream in STREAMS:
                        await log.end_step(self._key, stream)
                    return
            except (
                RunyardError
            ):  # of the daemon or the log's store: whoever follows the steps hears of it too
                await asyncio.sleep(_PAUSE_S)

    async def _read(self) -> AttemptLog:
        log = AttemptLog(self._context, bytes_max=self._bytes_max)
        last = dict.fromkeys(STREAMS, b"")
        with contextlib.suppress(Missing, NameTaken):  # gone, or going
            async with contextlib.aclosing(self._client.follow_log(self._container)) as pieces:
                async for frames in pieces:
                    for stream, _, data in joined(frames, mends_lines=self._mends_lines):
                        last[stream] = (last[stream] + data)[-LAST_BYTES:]
                        await log.write(self._key, stream, data)
                    self._last = dict(last)
        return log

    async def _is_running(self) -> bool:
        state = await self._client.inspect_container(self._container)
        return state is not None and bool(state["State"]["Running"])
