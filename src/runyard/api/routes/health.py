"""For what watches the service: is it alive, is it ready, how is it doing, what can it be asked."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from runyard.api.access import Reader
from runyard.api.description import describe, refusals
from runyard.api.errors import error_response
from runyard.wire.answers import ErrorAnswer, HealthAnswer

router = APIRouter(tags=["health"])
_OPEN: dict[str, Any] = {"security": []}


@router.get("/healthz", summary="Is it alive", response_model=HealthAnswer, openapi_extra=_OPEN)
async def healthz() -> Response:
    """The process answers. Needs no token."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get(
    "/readyz",
    summary="Is it ready",
    response_model=HealthAnswer,
    responses={503: {"model": ErrorAnswer, "description": "Not ready, and why"}},
    openapi_extra=_OPEN,
)
async def readyz(request: Request) -> Response:
    """It can take and run jobs. Needs no token."""
    context = request.app.state.context
    reason = "it is stopping" if context.is_closing else context.services.is_ready()
    if reason is None:
        return Response(b'{"status":"ready"}', media_type="application/json")
    body = {"code": "not_ready", "message": reason, "field": None, "cure": "wait, and look into the log"}
    return error_response(503, body, {"Retry-After": "2"})


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "Text", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **refusals(),
    },
)
async def metrics(call: Reader) -> Response:
    """Counts over all tenants, so for a token that is not bound to some."""
    call.require_all_tenants("/metrics")
    text = await call.context.services.render_metrics()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/openapi.json", summary="This description", responses=refusals())
async def openapi(call: Reader) -> Response:
    """OpenAPI 3.1."""
    return Response(json.dumps(describe(call.request.app)), media_type="application/json")
