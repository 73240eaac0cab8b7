"""What a client can run into, drawn as a tree.

    RunyardApiError
    ├── Unreachable        no answer came; whether something happened is unknown (calls that change are safe to repeat)
    ├── NotConfigured      no address or no token was found on this machine
    ├── Unauthorized 401   the token is missing, wrong or expired
    ├── Forbidden 403      the token may not do this
    ├── NotFound 404       there is no such thing, for this token
    ├── Conflict 409       the name is taken by something else, is ambiguous, or the state does not allow it
    ├── Gone 410           it was there and its time of keeping is over
    ├── Refused 4xx        the request is wrong; the same one will always fail
    ├── TooMany 429        a bound is reached; the same request may pass after `retry_after_s`
    └── ServerFault 5xx    the service failed, or answered what this client cannot read

Each message names what was tried and with which value; `cure` says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One more thing that is wrong with the same request; `field` is a dotted path into what was sent."""

    code: str
    message: str
    field: str | None = None
    cure: str | None = None
    more: tuple[Problem, ...] = ()


class RunyardApiError(Exception):
    """Root of the tree. `status` is 0 where no answer came; `code` is the published word for it; `more` holds the
    further problems of a refused document."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        field: str | None = None,
        cure: str | None = None,
        more: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.field = field
        self.cure = cure
        self.more = more

    def __str__(self) -> str:
        return f"{self.message}; {self.cure}" if self.cure else self.message


class Unreachable(RunyardApiError):
    pass


class NotConfigured(RunyardApiError):
    pass


class Unauthorized(RunyardApiError):
    pass


class Forbidden(RunyardApiError):
    pass


class NotFound(RunyardApiError):
    pass


class Conflict(RunyardApiError):
    pass


class Gone(RunyardApiError):
    pass


class Refused(RunyardApiError):
    pass


class TooMany(RunyardApiError):
    retry_after_s: float | None = None


class ServerFault(RunyardApiError):
    pass


_BY_STATUS: Mapping[int, type[RunyardApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    429: TooMany,
}


def error_of_answer(
    what: str, *, status: int, body: bytes, retry_after_s: float | None = None
) -> RunyardApiError:
    """The error for an answer that is none of 2xx. `what` says what was tried, for the message."""
    said = _error_body(body)
    message = str(
        said.get("message") or _plain_text(body) or f"the service answered {status} without a reason"
    )
    kind = _BY_STATUS.get(status) or (ServerFault if status >= 500 or status < 400 else Refused)
    error = kind(
        f"cannot {what}: {message}",
        status=status,
        code=str(said.get("code") or f"http_{status}"),
        field=said.get("field"),
        cure=said.get("cure"),
        more=_further(said),
    )
    if isinstance(error, TooMany):
        error.retry_after_s = retry_after_s
    return error


def _further(said: Mapping[str, Any]) -> tuple[Problem, ...]:
    listed = said.get("more")
    found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return tuple(
        Problem(
            code=str(one.get("code") or ""),
            message=str(one.get("message") or ""),
            field=one.get("field"),
            cure=one.get("cure"),
        )
        for one in found
    )


def _error_body(body: bytes) -> dict[str, Any]:
    """The `error` object of Runyard's own answers; empty for what a proxy in between wrote."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    said = document.get("error") if isinstance(document, dict) else None
    return said if isinstance(said, dict) else {}


def _plain_text(body: bytes) -> str:
    return " ".join(body[:300].decode("utf-8", "replace").split())
