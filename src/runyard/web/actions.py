"""What the pages' buttons and forms do: the API's own routes with the session's rights, then back to the page."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from runyard.api.access import Call
from runyard.api.auditing import audit
from runyard.api.routes import machines as machine_routes
from runyard.api.routes import pools as pool_routes
from runyard.api.routes import queues as queue_routes
from runyard.api.routes.artifacts import get_artifact
from runyard.api.routes.jobs import cancel_job, delete_job
from runyard.api.routes.secrets import delete_secret, set_secret
from runyard.api.routes.submitting import retry_as
from runyard.api.routes.tenants import set_tenant
from runyard.api.routes.tokens import delete_token, make_token
from runyard.api.validation import validate
from runyard.model.errors import Invalid
from runyard.model.token import Scope
from runyard.web.forms import form_fields
from runyard.web.page import Page
from runyard.web.rendering import SECURITY_HEADERS, whole
from runyard.web.session import call_of
from runyard.web.views.access import is_own
from runyard.wire.job_document import NAME_PATTERN, SECRET_NAME_PATTERN, SHAPES
from runyard.wire.requests import RetryPost

Action = Callable[[Request], Awaitable[Response]]
_NAME = re.compile(NAME_PATTERN)
_SECRET = re.compile(SECRET_NAME_PATTERN)


# -- jobs ---------------------------------------------------------------------------------------------------------
async def _cancel(request: Request) -> Response:
    call = await call_of(request, Scope.SUBMIT)
    await cancel_job(call, request.path_params["id"])
    return _back(f"/jobs/{request.path_params['id']}", request)


async def _retry(request: Request) -> Response:
    """To the new job's page. The form names the new job, so that a second click makes no second one."""
    call = await call_of(request, Scope.SUBMIT)
    name = (await form_fields(request)).get("id", "").strip()
    answer = await retry_as(
        call, request.path_params["id"], validate(RetryPost, {"id": name} if name else {})
    )
    return _back(f"/jobs/{json.loads(bytes(answer.body))['id']}", request)


async def _delete_job(request: Request) -> Response:
    call = await call_of(request, Scope.SUBMIT)
    await delete_job(call, request.path_params["id"])
    return _back("/jobs", request)


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


async def _delete_queue(request: Request) -> Response:
    call = await call_of(request, Scope.OPERATE)
    await queue_routes.delete_queue(call, _name(request.path_params["name"]))
    return _back("/queues", request)


async def _set_tenant(request: Request) -> Response:
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    fields = await form_fields(request)
    await set_tenant(call, name, _numbers(fields, ("weight", "running_max", "queued_max")))
    return _back(f"/tenants/{name}", request)


# -- machines -----------------------------------------------------------------------------------------------------
async def _drain_machine(request: Request, *, is_drained: bool) -> Response:
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    act = machine_routes.drain_machine if is_drained else machine_routes.undrain_machine
    await act(call, name)
    return _back(f"/machines/{name}", request)


# -- pools --------------------------------------------------------------------------------------------------------
async def _pause_pool(request: Request, *, is_paused: bool) -> Response:
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    act = pool_routes.pause_pool if is_paused else pool_routes.resume_pool
    await act(call, name)
    return _back(f"/pools/{name}", request)


async def _check_pool(request: Request) -> Response:
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    return _answered(call, name, "Check", await pool_routes.check_pool(call, name))


async def _prune_pool(request: Request) -> Response:
    """First what would be removed; the answer's own button removes it."""
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    is_dry_run = (await form_fields(request)).get("confirm") != "yes"
    answer = await pool_routes.prune_pool(call, name, dry_run=is_dry_run)
    return _answered(
        call, name, "What is left behind" if is_dry_run else "Removed", answer, is_dry_run=is_dry_run
    )


async def _forget_pool(request: Request) -> Response:
    """Only with the pool's name written out: what runs there is declared dead."""
    call = await call_of(request, Scope.OPERATE)
    name = _name(request.path_params["name"])
    if (await form_fields(request)).get("confirm", "").strip() != name:
        raise Invalid(
            f"confirm: it is not the name of the pool, {name!r}",
            field="confirm",
            cure="write the pool's name",
        )
    return _answered(call, name, "Given up", await pool_routes.forget_pool(call, name))


def _answered(call: Call, name: str, what: str, answer: Response, *, is_dry_run: bool = False) -> Response:
    """What the owner said, as a page: it is an answer, and gone with it."""
    result = json.loads(bytes(answer.body))["result"]
    values = {"name": name, "what": what, "result": result, "is_dry_run": is_dry_run}
    page = Page(title=f"{what}: {name}", template="answer.html", values=values)
    return whole(page, {"token": call.token, "at": f"/pools/{name}", "live": None})


# -- credentials --------------------------------------------------------------------------------------------------
async def _create_token(request: Request) -> Response:
    """The answer shows the secret, this once."""
    call = await call_of(request, Scope.ADMIN)
    fields = await form_fields(request)
    document: dict[str, object] = {"name": fields.get("name", "").strip(), "scope": fields.get("scope", "")}
    tenants = fields.get("tenants", "").replace(",", " ").split()
    if tenants:
        document["tenants"] = tenants
    if fields.get("expires_in", "").strip():
        document["expires_in"] = fields["expires_in"].strip()
    token, secret = await make_token(call, document)
    page = Page(title="Token made", template="token.html", values={"made": token, "secret": secret})
    return whole(page, {"token": call.token, "at": "/access", "live": None})


async def _revoke(request: Request) -> Response:
    """A session of one's own; an administrator revokes any."""
    call = await call_of(request)
    wanted = request.path_params["id"]
    ledger = call.context.services.ledger
    known = next((one for one in await ledger.list_tokens() if one.id == wanted), None)
    if known is not None and is_own(call, known):
        await ledger.delete_token(wanted)
        call.context.tokens.forget()
        await audit(call, "revoke", f"session {wanted}")
    else:
        await delete_token(await call_of(request, Scope.ADMIN), wanted)
    return _back("/access", request)


# -- secrets ------------------------------------------------------------------------------------------------------
async def _set_secret(request: Request) -> Response:
    call = await call_of(request, Scope.OPERATE)
    fields = await form_fields(request)
    name = fields.get("name", "").strip()
    if not _SECRET.fullmatch(name):
        raise Invalid(f"name: {name[:80]!r} is none", field="name", cure=SHAPES[SECRET_NAME_PATTERN].rule)
    queues = tuple(map(_name, fields.get("queues", "").replace(",", " ").split()))
    await set_secret(_for_tenant(call, fields), name, fields.get("value", "").encode(), queues or None)
    return _back("/access", request)


async def _delete_secret(request: Request) -> Response:
    call = await call_of(request, Scope.OPERATE)
    await delete_secret(_for_tenant(call, await form_fields(request)), request.path_params["name"])
    return _back("/access", request)


def _for_tenant(call: Call, fields: Mapping[str, str]) -> Call:
    """The call for the tenant that the form names, if it names one."""
    tenant = fields.get("tenant", "").strip()
    return replace(call, asked_tenant=_name(tenant)) if tenant else call


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
    ("POST", "/jobs/{id}/delete", _delete_job),
    ("GET", "/jobs/{id}/artifacts/{path:path}", _artifact),
    ("POST", "/queues/new", _create_queue),
    ("POST", "/queues/{name}", _set_queue),
    ("POST", "/queues/{name}/delete", _delete_queue),
    ("POST", "/queues/{name}/pause", partial(_pause_queue, is_paused=True)),
    ("POST", "/queues/{name}/resume", partial(_pause_queue, is_paused=False)),
    ("POST", "/tenants/{name}", _set_tenant),
    ("POST", "/pools/{name}/pause", partial(_pause_pool, is_paused=True)),
    ("POST", "/pools/{name}/resume", partial(_pause_pool, is_paused=False)),
    ("POST", "/pools/{name}/check", _check_pool),
    ("POST", "/pools/{name}/prune", _prune_pool),
    ("POST", "/pools/{name}/forget", _forget_pool),
    ("POST", "/machines/{name}/drain", partial(_drain_machine, is_drained=True)),
    ("POST", "/machines/{name}/undrain", partial(_drain_machine, is_drained=False)),
    ("POST", "/access/tokens", _create_token),
    ("POST", "/access/{id}/revoke", _revoke),
    ("POST", "/access/secrets", _set_secret),
    ("POST", "/access/secrets/{name}/delete", _delete_secret),
)
