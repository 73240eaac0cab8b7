"""Who looks at the pages: a session, kept as a cookie, opened with a token or with a one-time link.

A session is a credential of its own in the ledger, beside the token it was made from and never beyond it: it is listed
and revoked like a token, ends with its parent, and is no good for the API. Its cookie is out of reach of scripts; what
changes something must come from our own pages (the browser says so in Sec-Fetch-Site, or in Origin).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from runyard.api.access import Call, admit, find_token
from runyard.api.errors import Unauthenticated
from runyard.api.secret import hash_secret, new_secret, new_uid
from runyard.api.services import ApiContext
from runyard.model.errors import Denied
from runyard.model.token import Scope, Token, TokenKind

COOKIE = "runyard_session"
SESSION_S = 12 * 3600.0
_SAFE_METHODS = frozenset({"GET", "HEAD"})


async def sign_in_with_token(context: ApiContext, secret: str) -> str:
    """A new session's secret. Raises Unauthenticated."""
    token = await find_token(context, secret.strip())
    return await _open(context, token, parent=token.id)


async def sign_in_with_link(context: ApiContext, code: str) -> str:
    """A new session's secret, once for each link. Raises Unauthenticated."""
    link = await find_token(context, code, kind=TokenKind.LINK)
    is_first = await context.services.ledger.delete_token(link.id)
    context.tokens.forget()
    if not is_first:
        raise Unauthenticated(
            "the link was used already", field="code", cure="sign in with a token, or restart the service"
        )
    return await _open(context, link, parent=link.parent)


async def _open(context: ApiContext, token: Token, *, parent: str | None) -> str:
    ledger = context.services.ledger
    now = await ledger.now()
    end = now + SESSION_S
    secret = new_secret()
    await ledger.put_token(
        Token(
            id=new_uid(),
            name=f"page session of {token.name}",
            secret_hash=hash_secret(secret),
            scope=token.scope,
            tenants=token.tenants,
            created_at=now,
            expires_at=end
            if token.expires_at is None or token.kind is TokenKind.LINK
            else min(end, token.expires_at),
            kind=TokenKind.SESSION,
            parent=parent,
        )
    )
    return secret


async def call_of(request: Request, scope: Scope = Scope.READ) -> Call:
    """The request as a call of its session. Raises Unauthenticated, Denied (scope, or another site asks)."""
    refuse_other_sites(request)
    secret = request.cookies.get(COOKIE, "")
    tenant = request.query_params.get("tenant") or None
    return await admit(request, secret, scope, tenant, kind=TokenKind.SESSION)


async def sign_out(call: Call) -> None:
    await call.context.services.ledger.delete_token(call.token.id)
    call.context.tokens.forget()


def refuse_other_sites(request: Request) -> None:
    """Raises Denied for a change that another site's page asks for in this browser's name."""
    if request.method in _SAFE_METHODS:
        return
    said = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    is_ours = said in ("same-origin", "none") if said is not None else _is_own(origin, request)
    if not is_ours:
        raise Denied(
            "another site's page asked for this", field="Origin", cure="use the buttons of the page itself"
        )


def _is_own(origin: str | None, request: Request) -> bool:
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def set_cookie(response: Response, request: Request, secret: str) -> None:
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(SESSION_S),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
