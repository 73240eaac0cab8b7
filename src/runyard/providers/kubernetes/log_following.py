"""A container's log into the attempt's log, live, taken up where it was dropped, until the container has ended and all
that it printed is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import structlog

from runyard.model.errors import Conflict, ProviderError
from runyard.providers.kubernetes.client import KubernetesClient, RefusedStream
from runyard.providers.kubernetes.stamped_lines import Piece, StampedLines
from runyard.providers.port import LogSink

STREAM = "stdout"
"""The container runtime keeps both streams in one file, and the API serves them as one."""

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0
IDLE_S = 600.0
"""A connection on which nothing came for so long is opened again: it may be dead."""

PROBE_BYTES = 4096

log = structlog.get_logger()


class LogFollower:
    """One container of one attempt. `ended` is set once the container is known to have ended, or to be gone."""

    def __init__(
        self,
        client: KubernetesClient,
        sink: LogSink,
        *,
        pod: str,
        container: str,
        step: str,
        ended: asyncio.Event,
    ) -> None:
        self._client = client
        self._sink = sink
        self._pod = pod
        self._container = container
        self._step = step
        self._ended = ended
        self._lines = StampedLines()
        self._adopted: int | None = None
        self.has_spoken = asyncio.Event()

    async def follow(self) -> None:
        """Returns once all is kept, or cannot be had any more. Raises what the sink raises."""
        self._adopted = await self._sink.size(self._step, STREAM)
        delay_s = RETRY_FIRST_S
        while True:
            is_last = self._ended.is_set()  # what is read whole after the end is all there is
            stored = self._lines.stored
            try:
                await self._read(follow=not is_last)
                if is_last:
                    return
            except RefusedStream as error:
                if error.refusal.is_missing or (
                    is_last and error.refusal.code == 400
                ):  # gone, or never started
                    self._tell_lost(error)
                    return
            except _Interrupted as error:
                log.info("kubernetes_log_dropped", pod=self._pod, container=self._container, error=str(error))
            delay_s = RETRY_FIRST_S if self._lines.stored > stored else min(RETRY_MAX_S, delay_s * 2)
            await self._ended_or(delay_s)

    async def _read(self, *, follow: bool) -> None:
        self._lines.begin_stream()
        async with contextlib.aclosing(self._chunks(follow=follow)) as chunks:
            async for chunk in chunks:
                for piece in self._lines.feed(chunk):
                    await self._keep(piece)

    async def _chunks(self, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """What the server sends; raises _Interrupted where it stops, so that the sink's own errors are told apart."""
        try:
            async with self._client.reading_log(
                self._pod, self._container, follow=follow, since=self._lines.since, idle_s=IDLE_S
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
        except RefusedStream:
            raise
        except ProviderError as error:
            raise _Interrupted(error.message) from None

    async def _keep(self, piece: Piece) -> None:
        if self._adopted:
            piece_or_none = await self._take_up(piece, self._adopted)
            self._adopted = 0
            if piece_or_none is None:
                return
            piece = piece_or_none
        await self._sink.append(self._step, STREAM, piece.offset, piece.data)
        self.has_spoken.set()

    async def _take_up(self, piece: Piece, kept: int) -> Piece | None:
        """An earlier follower kept `kept` bytes. The log is read from its beginning and compared with what is kept: one
        that was rotated since begins otherwise, and what lies between is lost."""
        self._lines.stored = max(kept, piece.offset + len(piece.data))
        try:
            await self._sink.append(self._step, STREAM, piece.offset, piece.data[:PROBE_BYTES])
        except Conflict:
            self._lines.lose_place(kept, piece)
            return Piece(kept + 1, piece.data)
        new = piece.data[max(0, kept - piece.offset) :]
        return Piece(kept, new) if new else None

    async def _ended_or(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._ended.wait()

    def _tell_lost(self, error: RefusedStream) -> None:
        log.warning("kubernetes_log_lost", pod=self._pod, container=self._container, error=error.message)


class _Interrupted(Exception):
    """The stream broke off; what it gave is good."""
