"""The log of an attempt that has secrets, for places that are far: what they send is masked before it is stored.

A mask here has a `*` for each byte, so that a byte's offset stays what the place counts: then a repeated append is
recognised, and whoever adopts the attempt goes on at the stored size, which lies before whatever was held back.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

import structlog

from runyard.logs.masking import Masks, StreamMasker
from runyard.logs.port import LogSink
from runyard.model.errors import Unreachable

IDLE_S = 0.25
"""How long a stream is silent before what may be shown of a beginning is."""

FINISH_RETRY_S = 1.0

log = structlog.get_logger()


class Sink(Protocol):
    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None: ...

    async def size(self, step: str, stream: str) -> int: ...


class MaskedLog:
    """A LogSink (providers/port.py) over one. `finish` stores the rest once nothing more comes."""

    def __init__(self, sink: LogSink | Sink, masks: Masks) -> None:
        self._sink = sink
        self._masks = masks
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._lock = asyncio.Lock()
        self._showing: asyncio.Task[None] | None = None

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        async with self._lock:
            known = await self._stream(step, stream)
            await known.append(offset, data)
        if known.is_waiting and (self._showing is None or self._showing.done()):
            self._showing = asyncio.create_task(self._show_idle())

    async def size(self, step: str, stream: str) -> int:
        return await self._sink.size(step, stream)

    async def finish(self) -> None:
        """Waits for a store that cannot be reached: what is held back is there nowhere else."""
        if self._showing is not None:
            self._showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._showing
        for stream in self._streams.values():
            while True:
                try:
                    await stream.end()
                    break
                except Unreachable as error:
                    log.warning("log_not_kept", error=error.message, retry_s=FINISH_RETRY_S)
                    await asyncio.sleep(FINISH_RETRY_S)

    async def _stream(self, step: str, stream: str) -> _Stream:
        key = step, stream
        if key not in self._streams:
            stored = await self._sink.size(step, stream)
            self._streams[key] = _Stream(
                self._sink, key, StreamMasker(self._masks, keeps_length=True), stored
            )
        return self._streams[key]

    async def _show_idle(self) -> None:
        """Until each stream was looked at after it fell silent."""
        loop = asyncio.get_running_loop()
        while any(stream.is_waiting for stream in self._streams.values()):
            await asyncio.sleep(IDLE_S)
            async with self._lock:
                for stream in self._streams.values():
                    if stream.is_waiting and loop.time() >= stream.touched_at + IDLE_S:
                        with contextlib.suppress(Unreachable):  # the next append, or the end, stores it
                            await stream.idle()


class _Stream:
    """`stored` bytes are in the sink, `_decided` ones come next, the masker holds the rest of what came."""

    def __init__(self, sink: LogSink | Sink, key: tuple[str, str], masker: StreamMasker, stored: int) -> None:
        self._sink = sink
        self._key = key
        self._masker = masker
        self._stored = stored
        self._decided = b""
        self.touched_at = 0.0
        self.is_waiting = False

    async def append(self, offset: int, data: bytes) -> None:
        self.touched_at = asyncio.get_running_loop().time()
        came = self._stored + len(self._decided) + self._masker.held_bytes
        if offset > came:  # bytes are left out: nothing goes on over them
            await self.end()
            self._stored = offset
        else:
            data = data[came - offset :]
        self._decided += self._masker.feed(data)
        self.is_waiting = self._masker.held_bytes > 0
        await self._store()

    async def idle(self) -> None:
        self.is_waiting = False
        self._decided += self._masker.idle()
        await self._store()

    async def end(self) -> None:
        self.is_waiting = False
        self._decided += self._masker.end()
        await self._store()

    async def _store(self) -> None:
        if self._decided:
            await self._sink.append(*self._key, self._stored, self._decided)
            self._stored += len(self._decided)
            self._decided = b""
