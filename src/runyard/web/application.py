"""Puts the pages into the service's HTTP application: routes, static files, and errors as pages."""

from __future__ import annotations

import contextlib
import gzip
import mimetypes
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from runyard.api.access import Call, check_address, stream
from runyard.api.errors import STATUS_OF, Unauthenticated, error_body
from runyard.api.open_bounds import OpenKind
from runyard.model.errors import NotFound, RunyardError
from runyard.web.actions import ACTIONS
from runyard.web.flow import FlowReader
from runyard.web.forms import form_fields
from runyard.web.lately import LatelyReader
from runyard.web.live import LiveSights, Rendered, Sight, page_frame
from runyard.web.log_routes import log_bytes, log_events, log_search, log_streams
from runyard.web.page import Address, Page, View
from runyard.web.rendering import SECURITY_HEADERS, inner, whole
from runyard.web.session import (
    COOKIE,
    call_of,
    refuse_other_sites,
    set_cookie,
    sign_in_with_link,
    sign_in_with_token,
    sign_out,
)
from runyard.web.views import VIEWS

_STATIC_AGE_S = 31_536_000

Answer = Callable[[Request], Awaitable[Response]]

_LOG: tuple[tuple[str, Answer], ...] = (
    ("/jobs/{id}/log", log_bytes),
    ("/jobs/{id}/log/streams", log_streams),
    ("/jobs/{id}/log/events", log_events),
    ("/jobs/{id}/log/search", log_search),
)


def install_pages(app: FastAPI) -> None:
    """Adds every page to the application that the API made."""
    sights = app.state.sights = LiveSights(app.state.context)
    services = app.state.context.services
    app.state.lately = LatelyReader(services.ledger, clock=services.clock)
    pages = [_ViewRoute(path, view) for path, view in VIEWS]
    routes: list[BaseRoute] = [
        Route("/static/{path:path}", _static),
        Route("/sign-in", _as_page(_sign_in), methods=["GET", "POST"]),
        Route("/sign-out", _as_page(_sign_out), methods=["POST"]),
        Route("/live", _as_page(lambda request: _live(request, pages, sights))),
        *(Route(path, _as_data(answer)) for path, answer in _LOG),
        Route("/flow", _as_data(FlowReader(app.state.context).answer)),
        *(Route(path, _as_page(answer), methods=[method]) for method, path, answer in ACTIONS),
        *pages,
        _NoPageRoute("/{path:path}", _as_page(_no_page)),
    ]
    app.router.routes.extend(routes)


class _ViewRoute(Route):
    """A page's route, which also finds the page of an address that /live is asked for."""

    def __init__(self, path: str, view: View) -> None:
        self.view = view
        super().__init__(path, _as_page(self._answer))

    async def _answer(self, request: Request) -> Response:
        call = await call_of(request)
        page = await self.view(call, Address(request.path_params, request.query_params))
        values = _frame_values(call, _address_of(request))
        return whole(page, values | {"live": None} if page.is_personal else values)


class _NoPageRoute(Route):
    """Whatever else a browser asks for; the API says by itself what it does not have."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope.get("path", "")
        is_apis = path.startswith("/api/") or "\0" in path
        return (Match.NONE, {}) if is_apis else super().matches(scope)


async def _no_page(request: Request) -> Response:
    path = request.url.path
    raise NotFound(f"there is no page {path[:100]!r}", field="url", cure="go on from the overview")


# -- looking ------------------------------------------------------------------------------------------------------
async def _live(request: Request, pages: list[_ViewRoute], sights: LiveSights) -> Response:
    """The page at `at`, again and again as it changes."""
    call = await call_of(request)
    at = request.query_params.get("at", "/")
    view, address = _find_view(pages, at)
    tenant = address.query.get("tenant") or None
    call = Call(call.context, call.request, call.token, tenant, call.secret)

    async def render() -> Rendered:
        page = await view(call, address)
        if page.is_personal:
            raise NotFound(f"the page {at[:100]!r} does not move", field="at", cure="load it again")
        return Rendered(page_frame(inner(page, _frame_values(call, at))), page.topics)

    sight = Sight(at, call.token.tenants, call.token.scope)
    return stream(call, OpenKind.PAGE, _until_error(sights.follow(sight, render)))


async def _until_error(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """What was looked at may go, or its reading may fail: the page then reloads, and gets the error as a page."""
    async with contextlib.aclosing(frames):
        try:
            async for frame in frames:
                yield frame
        except Exception:  # it was logged where it happened, if it is ours
            yield b"event: gone\ndata: \n\n"


def _find_view(pages: list[_ViewRoute], at: str) -> tuple[View, Address]:
    path, _, query = at.partition("?")
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    for route in pages:
        match, child = route.matches(scope)
        if match is Match.FULL:
            return route.view, Address(child["path_params"], QueryParams(query))
    raise NotFound(f"there is no page {at[:100]!r}", field="at", cure="look at a page of this service")


def _frame_values(call: Call, at: str) -> dict[str, Any]:
    return {"token": call.token, "at": at, "live": f"/live?at={quote(at, safe='')}"}


def _address_of(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


# -- signing in and out -------------------------------------------------------------------------------------------
async def _sign_in(request: Request) -> Response:
    """The form; the form's answer; or a one-time link, which needs a click, lest a preview of the link uses it up."""
    context = request.app.state.context
    after = _own_path(request.query_params.get("next", "/"))
    code = request.query_params.get("code", "")
    if request.method == "GET":
        return _sign_in_form(after, code=code)
    refuse_other_sites(request)
    fields = await form_fields(request)
    try:
        if code:
            secret = await sign_in_with_link(context, code)
        else:
            secret = await sign_in_with_token(context, fields.get("token", ""))
    except Unauthenticated as error:
        return _sign_in_form(after, problem=error, status=401)
    response = RedirectResponse(after, 303, SECURITY_HEADERS)
    set_cookie(response, request, secret)
    return response


def _sign_in_form(
    after: str, *, code: str = "", problem: RunyardError | None = None, status: int = 200
) -> Response:
    values = {"after": after, "code": code, "problem": problem}
    return whole(Page(title="Sign in", template="sign_in.html", values=values), _NOBODY, status)


_NOBODY: dict[str, Any] = {"token": None, "at": "/", "live": None}


async def _sign_out(request: Request) -> Response:
    await sign_out(await call_of(request))
    response = RedirectResponse("/sign-in", 303, SECURITY_HEADERS)
    response.delete_cookie(COOKIE)
    return response


def _own_path(path: str) -> str:
    """An address of ours, never another site's."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and "\n" not in path
    return path if is_own else "/"


# -- errors, static files -----------------------------------------------------------------------------------------
def _as_page(answer: Answer) -> Answer:
    """An error becomes a page with its cure; who is not signed in gets the form, and comes back here after it."""

    async def answered(request: Request) -> Response:
        try:
            check_address(request)
            return await answer(request)
        except Unauthenticated:
            if request.url.path == "/live":
                return Response("", 401, SECURITY_HEADERS)
            return RedirectResponse(
                f"/sign-in?next={quote(_address_of(request), safe='')}", 303, SECURITY_HEADERS
            )
        except RunyardError as error:
            return _error_page(error, await _frame_of(request))

    return answered


def _as_data(answer: Answer) -> Answer:
    """For what a script reads: an error is the API's document."""

    async def answered(request: Request) -> Response:
        try:
            check_address(request)
            return await answer(request)
        except RunyardError as error:
            status = _status_of(error)
            return JSONResponse({"error": error_body(error)}, status, SECURITY_HEADERS)

    return answered


def _status_of(error: RunyardError) -> int:
    return next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 500)


async def _frame_of(request: Request) -> dict[str, Any]:
    """The frame of whoever asks, so that an error is no dead end; none where that cannot be told."""
    try:
        return _frame_values(await call_of(request), _address_of(request)) | {"live": None}
    except RunyardError:
        return _NOBODY


def _error_page(error: RunyardError, frame: Mapping[str, Any]) -> HTMLResponse:
    status = _status_of(error)
    values = {"problem": error, "status": status, "phrase": HTTPStatus(status).phrase}
    return whole(Page(title=HTTPStatus(status).phrase, template="error.html", values=values), frame, status)


async def _static(request: Request) -> Response:
    content = _static_content(request.path_params["path"])
    if content is None:
        return Response("", 404)
    headers = {
        "Cache-Control": f"public, max-age={_STATIC_AGE_S}, immutable",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    body = content.plain
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = content.packed
        headers["Content-Encoding"] = "gzip"
    return Response(body, 200, headers, media_type=content.kind)


@dataclass(frozen=True, slots=True)
class _Static:
    """A file of ours, as it is and compressed: none of them ever changes while the service runs."""

    kind: str
    plain: bytes
    packed: bytes


def _static_content(path: str) -> _Static | None:
    return _read_static(path) if path in _static_names() else None


@cache
def _read_static(path: str) -> _Static:
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    plain = files("runyard.web").joinpath("static", path).read_bytes()
    return _Static(kind, plain, gzip.compress(plain, mtime=0))


@cache
def _static_names() -> frozenset[str]:
    root = files("runyard.web").joinpath("static")
    vendored = {f"vendor/{item.name}" for item in root.joinpath("vendor").iterdir()}
    return frozenset({item.name for item in root.iterdir() if item.is_file()} | vendored)
