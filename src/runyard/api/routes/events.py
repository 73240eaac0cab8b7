"""The feed of state changes: what a product follows to learn how its jobs end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from runyard.api.access import Call, TenantReader, stream
from runyard.api.description import refusals
from runyard.api.errors import Gone
from runyard.api.open_bounds import OpenKind
from runyard.model.errors import Invalid

SEQUENCE_MAX = (1 << 63) - 1
REREAD_S = 5.0

router = APIRouter(prefix="/api/v1", tags=["events"])


@router.get(
    "/events",
    summary="Follow every state change",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events: `id` the cursor, `data` an event",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **refusals(410, 429),
    },
)
async def get_events(
    call: TenantReader,
    after: Annotated[int | None, Query(ge=0, le=SEQUENCE_MAX, description="Go on behind this event")] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Of the token's tenants, in order, at least once. Without a cursor from now on; `after=0` from the oldest that
    is kept (7 days); 410 for a cursor that is older, or of another ledger: list the jobs, then follow anew."""
    tenants = call.tenants
    cursor = await _begin(call, _cursor(last_event_id) if last_event_id else after)
    return stream(call, OpenKind.EVENTS, _frames(call, cursor, tenants))


def _cursor(text: str) -> int:
    if not text.isdecimal() or len(text) > 19 or int(text) > SEQUENCE_MAX:
        raise Invalid(
            f"Last-Event-ID: {text[:60]!r} is no cursor of events",
            field="Last-Event-ID",
            cure="send the id of the last event as it came",
        )
    return int(text)


async def _begin(call: Call, asked: int | None) -> int:
    oldest, newest = await call.context.services.ledger.event_bounds()
    if asked is None:
        return newest
    if asked > newest or 0 < asked < oldest - 1:
        raise Gone(
            f"events from {asked} on are not kept; there are {oldest} to {newest}",
            field="after",
            cure="list the jobs you wait for, then follow without a cursor",
        )
    return asked


async def _frames(call: Call, cursor: int, tenants: tuple[str, ...] | None) -> AsyncGenerator[bytes, None]:
    tail = call.context.event_tail
    async with tail.viewing():
        while True:
            reached, frames = await tail.read(cursor, tenants)
            if frames:
                yield b"".join(frames)  # a burst costs one write
            if reached == cursor:
                await tail.wait(cursor, REREAD_S)
            cursor = reached
