"""What the pages' buttons do: the API's own routes, called with the session's rights; then back to the page."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from runyard.api.routes.artifacts import get_artifact
from runyard.api.routes.jobs import cancel_job
from runyard.api.routes.submitting import retry_job
from runyard.model.token import Scope
from runyard.web.rendering import SECURITY_HEADERS
from runyard.web.session import call_of

Action = Callable[[Request], Awaitable[Response]]


async def cancel(request: Request) -> Response:
    call = await call_of(request, Scope.SUBMIT)
    await cancel_job(call, request.path_params["id"])
    return _back(f"/jobs/{request.path_params['id']}", request)


async def retry(request: Request) -> Response:
    """To the new job's page."""
    call = await call_of(request, Scope.SUBMIT)
    answer = await retry_job(call, request.path_params["id"])
    return _back(f"/jobs/{json.loads(bytes(answer.body))['id']}", request)


async def artifact(request: Request) -> Response:
    call = await call_of(request)
    path = request.path_params["path"]
    return await get_artifact(call, request.path_params["id"], path, range=request.headers.get("range"))


def _back(path: str, request: Request) -> Response:
    tenant = request.query_params.get("tenant")
    where = f"{path}?tenant={quote(tenant)}" if tenant else path
    return RedirectResponse(where, 303, SECURITY_HEADERS)


ACTIONS: tuple[tuple[str, str, Action], ...] = (
    ("POST", "/jobs/{id}/cancel", cancel),
    ("POST", "/jobs/{id}/retry", retry),
    ("GET", "/jobs/{id}/artifacts/{path:path}", artifact),
)
