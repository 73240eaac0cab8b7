"""Errors as HTTP says them: one document, `{"error": {"code", "message", "field", "cure"}}`, for every refusal.

What only HTTP knows joins the tree of model/errors.py here:

    UserError
    ├── Invalid
    │   ├── InvalidDocument    further problems of the same document in `more`
    │   └── Malformed          the bytes are no JSON, no YAML, no UTF-8
    ├── Unauthenticated        no token, or one that is unknown, revoked or expired
    ├── Gone                   it was there; its time of keeping is over
    ├── TooLarge               more bytes than are read
    ├── UnsupportedMediaType   neither JSON nor YAML
    └── RangeNotSatisfiable    the bytes asked for lie behind the end
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runyard.api.phrases import words_for
from runyard.model.errors import (
    Ambiguous,
    Conflict,
    Denied,
    Invalid,
    LedgerUnavailable,
    NotFound,
    RunyardError,
    SecretsUnavailable,
    StoreUnavailable,
    TooMany,
    UserError,
)

_log = structlog.get_logger()


class InvalidDocument(Invalid):
    """The first problem, and the others."""

    def __init__(self, problems: Iterable[Invalid]) -> None:
        first, *self.more = problems
        super().__init__(first.message, field=first.field, cure=first.cure)
        self.code = first.code


class Malformed(Invalid):
    code = "malformed"


class Unauthenticated(UserError):
    code = "unauthenticated"


class Gone(UserError):
    code = "gone"


class TooLarge(UserError):
    code = "too_large"


class UnsupportedMediaType(UserError):
    code = "unsupported_media_type"


class RangeNotSatisfiable(UserError):
    code = "range_not_satisfiable"

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message, field="Range", cure=f"ask for bytes below {size}")
        self.size = size


STATUS_OF: dict[type[RunyardError], int] = {
    Malformed: 400,
    Unauthenticated: 401,
    Denied: 403,
    NotFound: 404,
    Conflict: 409,
    Ambiguous: 409,
    Gone: 410,
    TooLarge: 413,
    UnsupportedMediaType: 415,
    RangeNotSatisfiable: 416,
    Invalid: 422,
    TooMany: 429,
    LedgerUnavailable: 503,
    SecretsUnavailable: 503,
    StoreUnavailable: 503,
}
_CODE_OF_STATUS = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}
PUBLISHED_CODES: frozenset[str] = frozenset(
    {kind.code for kind in STATUS_OF} | {"method_not_allowed", "not_ready", "internal"}
)
"""Every `error.code` that the API answers with; docs/api.md holds the same list."""


def error_body(error: RunyardError) -> dict[str, Any]:
    """The `error` object. `more` is there only where there is more."""
    body: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "field": error.field,
        "cure": error.cure,
    }
    if isinstance(error, InvalidDocument) and error.more:
        body["more"] = [error_body(problem) for problem in error.more]
    return body


def error_response(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """ASCII only: a message may quote text that no encoding can carry, such as half a surrogate pair."""
    content = json.dumps({"error": body}).encode()
    return Response(content, status, headers, media_type="application/json")


def install_error_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """`routes` are all that the application has: the answer to a wrong method names those of the path."""
    app.state.routes = routes
    app.add_exception_handler(RunyardError, _answer_runyard_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_parameters)
    app.add_middleware(ErrorBoundary)


async def _answer_runyard_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RunyardError)
    status = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), None)
    if status is None:
        raise error  # not a refusal but a fault of ours: the boundary answers
    if isinstance(error, LedgerUnavailable):
        _log.error("ledger_unavailable", path=request.url.path, error=error.message)
    if isinstance(error, StoreUnavailable):
        _log.error("object_store_unavailable", path=request.url.path, error=error.message)
    return error_response(status, error_body(error), _headers_of(error))


def _headers_of(error: RunyardError) -> dict[str, str]:
    match error:
        case TooMany():
            return {"Retry-After": str(max(1, round(error.retry_after_s)))}
        case LedgerUnavailable() | StoreUnavailable():
            return {"Retry-After": "2"}
        case Unauthenticated():
            return {"WWW-Authenticate": "Bearer"}
        case RangeNotSatisfiable():
            return {"Content-Range": f"bytes */{error.size}"}
        case _:
            return {}


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: an unknown path, a method that is not there."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    phrases = {
        404: (f"there is no {path!r} here", "the paths are listed in /openapi.json"),
        405: (f"{request.method} is not possible on {path!r}", "the header Allow names what is"),
    }
    message, cure = phrases.get(
        error.status_code, (str(error.detail), "see /openapi.json for what the request may hold")
    )
    code = _CODE_OF_STATUS.get(error.status_code, "invalid")
    body = {"code": code, "message": message, "field": None, "cure": cure}
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_of(request))
    return error_response(error.status_code, body, headers)


def _methods_of(request: Request) -> list[str]:
    """Of all routes of the path; the framework names those of the first one only."""
    here = [
        route
        for route in request.app.state.routes
        if isinstance(route, Route) and route.path_regex.match(request.scope["path"])
    ]
    return sorted({method for route in here for method in route.methods or ()})


async def _answer_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"][1:]) or str(problem["loc"][0])
        statement, cure = words_for(problem)
        problems.append(Invalid(f"{field}: {statement}", field=field, cure=cure))
    return error_response(422, error_body(InvalidDocument(problems)))


class ErrorBoundary:
    """Outermost of ours: what nobody expected is logged with an id, and the answer tells that id and nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            error_id = secrets.token_hex(6)
            _log.error("request_failed", id=error_id, path=scope.get("path"), exc_info=error)
            if has_begun or scope["type"] != "http":
                raise  # too late for an answer: the connection must break, so that nobody takes it for whole
            body = {
                "code": "internal",
                "message": f"something went wrong inside the service; its log has the details under {error_id}",
                "field": None,
                "cure": "report the id to whoever runs the service; repeating the request may help",
            }
            await error_response(HTTPStatus.INTERNAL_SERVER_ERROR, body)(scope, receive, send)
