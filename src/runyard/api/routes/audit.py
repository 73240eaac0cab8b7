"""The audit: who changed what, when and from where; and the links that open the pages."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response

from runyard.api.access import Operator, Reader
from runyard.api.answers import audit_answer, json_response
from runyard.api.auditing import audit
from runyard.api.description import refusals
from runyard.api.links import new_link
from runyard.wire.answers import AuditPage, LinkAnswer

SEQUENCE_MAX = (1 << 62) - 1

router = APIRouter(prefix="/api/v1", tags=["audit"])


@router.get("/audit", summary="Who changed what", response_model=AuditPage, responses=refusals())
async def list_audit(
    call: Operator,
    before: Annotated[int | None, Query(ge=1, le=SEQUENCE_MAX, description="the last page's `next`")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """Newest first. Kept for a year. For a token that is bound to no tenant."""
    call.require_all_tenants("the audit")
    lines = await call.context.services.ledger.list_audit(before=before, limit=limit)
    following = lines[-1].sequence if len(lines) == limit else None
    return json_response(AuditPage(lines=[audit_answer(line) for line in lines], next=following))


@router.post(
    "/sign-in-links",
    summary="Make a link that signs in once",
    status_code=201,
    response_model=LinkAnswer,
    responses=refusals(),
)
async def create_link(call: Reader) -> Response:
    """A path of this service; whoever opens it within ten minutes, once, sees the pages with this token's rights."""
    link = await new_link(call.context.services.ledger, call.token)
    await audit(call, "create", "sign-in link")
    return json_response(LinkAnswer(**asdict(link)), 201)
