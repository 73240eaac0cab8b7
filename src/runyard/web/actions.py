"""What the pages' buttons and forms do: the API's own routes with the session's rights, then back to the page."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from runyard.api.routes import pools as pool_routes
from runyard.api.routes import queues as queue_routes
from runyard.api.routes.artifacts import get_artifact
from runyard.api.routes.jobs import cancel_job
from runyard.api.routes.submitting import retry_job
from runyard.api.routes.tenants import set_tenant
from runyard.model.errors import Invalid
from runyard.model.token import Scope
from runyard.web.forms import form_fields
from runyard.web.page import Page
from runyard.web.rendering import SECURITY_HEADERS, whole
from runyard.web.session import call_of
from runyard.wire.job_document import NAME_PATTERN, SHAPES

Action = Callable[[Request], Awaitable[Response]]
_NAME = re.compile(NAME_PATTERN)


# -- jobs ---------------------------------------------------------------------------------------------------------
async def _cancel(request: Request) -> Response:
    call = await call_of(request, Scope.SUBMIT)
    await cancel_job(call, request.path_params["id"])
    return _back(f"/jobs/{request.path_params['id']}", request)


async def _retry(request: Request) -> Response:
    """To the new job's page."""
    call = await call_of(request, Scope.SUBMIT)
    answer = await retry_job(call, request.path_params["id"])
    return _back(f"/jobs/{json.loads(bytes(answer.body))['id']}", request)


async def _artifact(request: Request) -> Response:
    call = await call_of(request)
    path = request.path_params["path"]
    return await get_artifact(call, request.path_params["id"], path, range=request.headers.get("range"))


# -- queues and tenants -------------------------------------------------------------------------------------------
async def _create_queue(request: Request) -> Response:
    call = await call_of(request, Scope.OPERATE)
    name = _name((await form_fields(request)).get("name", "").strip())
    if await call.context.services.ledger.get_queue(name) is None:
        await queue_routes.set_queue(call, name, {})
    return _back(f"/queues/{name}", request)


async def _set_queue(request: Request) -> Response:
    """What the form does not show, the defaults, stays."""
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    document = _numbers(
        await form_fields(request), ("weight", "running_max", "queued_max", "tenant_running_max")
    )
    present = await call.context.services.ledger.get_queue(name)
    if present is not None:
        document["defaults"] = dict(present.settings.defaults)
    await queue_routes.set_queue(call, name, document)
    return _back(f"/queues/{name}", request)


async def _pause_queue(request: Request, *, is_paused: bool) -> Response:
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    act = queue_routes.pause_queue if is_paused else queue_routes.resume_queue
    await act(call, name)
    return _back(f"/queues/{name}", request)


async def _set_tenant(request: Request) -> Response:
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    fields = await form_fields(request)
    await set_tenant(call, name, _numbers(fields, ("weight", "running_max", "queued_max")))
    return _back("/queues", request)


# -- pools --------------------------------------------------------------------------------------------------------
async def _pause_pool(request: Request, *, is_paused: bool) -> Response:
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    act = pool_routes.pause_pool if is_paused else pool_routes.resume_pool
    await act(call, name)
    return _back(f"/pools/{name}", request)


async def _check_pool(request: Request) -> Response:
    """The findings as a page: they are an answer, and gone with it."""
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    answer = json.loads(bytes((await pool_routes.check_pool(call, name)).body))
    page = Page(
        title=f"Check of {name}", template="check.html", values={"name": name, "result": answer["result"]}
    )
    return whole(page, {"token": call.token, "at": f"/pools/{name}", "live": None})


# -- forms --------------------------------------------------------------------------------------------------------
def _numbers(fields: Mapping[str, str], keys: tuple[str, ...]) -> dict[str, object]:
    """Those that were written; an empty field is no bound. Raises Invalid."""
    document: dict[str, object] = {}
    for key in keys:
        text = fields.get(key, "").strip()
        if text:
            try:
                document[key] = float(text) if key == "weight" else int(text)
            except ValueError:
                raise Invalid(
                    f"{key}: {text[:40]!r} is no number", field=key, cure="write a number"
                ) from None
    return document


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Invalid(f"name: {text[:80]!r} is none", field="name", cure=SHAPES[NAME_PATTERN].rule)
    return text


def _back(path: str, request: Request) -> Response:
    tenant = request.query_params.get("tenant")
    where = f"{path}?tenant={quote(tenant)}" if tenant else path
    return RedirectResponse(where, 303, SECURITY_HEADERS)


ACTIONS: tuple[tuple[str, str, Action], ...] = (
    ("POST", "/jobs/{id}/cancel", _cancel),
    ("POST", "/jobs/{id}/retry", _retry),
    ("GET", "/jobs/{id}/artifacts/{path:path}", _artifact),
    ("POST", "/queues/new", _create_queue),
    ("POST", "/queues/{name}", _set_queue),
    ("POST", "/queues/{name}/pause", partial(_pause_queue, is_paused=True)),
    ("POST", "/queues/{name}/resume", partial(_pause_queue, is_paused=False)),
    ("POST", "/tenants/{name}", _set_tenant),
    ("POST", "/pools/{name}/pause", partial(_pause_pool, is_paused=True)),
    ("POST", "/pools/{name}/resume", partial(_pause_pool, is_paused=False)),
    ("POST", "/pools/{name}/check", _check_pool),
)
