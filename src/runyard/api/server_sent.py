"""Server-sent events: their bytes, and the response that keeps a quiet stream alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from runyard.api.open_bounds import Permit

HEARTBEAT_S = 15.0
LOOK_S = 1.0
HEARTBEAT = b": still here\n\n"


def encode_event(data: bytes, *, cursor: str | None = None, event: str | None = None) -> bytes:
    """`data` is one line; without `event` it is a plain message. `cursor` is what Last-Event-ID gives back."""
    name = b"event: " + event.encode() + b"\n" if event else b""
    identity = b"id: " + cursor.encode() + b"\n" if cursor else b""
    return name + identity + b"data: " + data + b"\n\n"


class EventStream(StreamingResponse):
    """`frames` as they come; a comment line where none came for 15 s. `is_over` is asked each second or so and
    ends the stream: the service is closing, or the token was revoked. However it ends, `permit` is released."""

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        is_over: Callable[[float], Awaitable[bool]],
        permit: Permit,
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_with_heartbeats(frames, is_over), headers=headers)
        self._permit = permit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._permit.release()


async def _with_heartbeats(
    frames: AsyncGenerator[bytes, None], is_over: Callable[[float], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    said_at = looked_at = now()
    yield b": stream\n\n"  # the headers go out at once, and a proxy sees that something comes
    pending = asyncio.ensure_future(anext(frames, None))
    try:
        while True:
            await asyncio.wait({pending}, timeout=LOOK_S)
            if now() - looked_at >= LOOK_S:
                if await is_over(now()):
                    return
                looked_at = now()
            if pending.done():
                frame = pending.result()
                if frame is None:
                    return
                pending = asyncio.ensure_future(anext(frames, None))
                said_at = now()
                yield frame
            elif now() - said_at >= HEARTBEAT_S:
                said_at = now()
                yield HEARTBEAT
    finally:
        pending.cancel()
        await asyncio.wait({pending})
        await frames.aclose()
