"""Who is asking, and whether they may: the one dependency that every route but /healthz and /readyz has.

A job of a tenant that the token is not for does not exist for it: 404, never 403. Naming such a tenant oneself is 403.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Query, Request

from runyard.api.errors import Unauthenticated
from runyard.api.open_bounds import OpenKind, Permit
from runyard.api.query_keys import refuse_unknown_keys
from runyard.api.secret import hash_secret
from runyard.api.server_sent import EventStream
from runyard.api.services import ApiContext
from runyard.model.errors import Denied, Invalid
from runyard.model.token import Scope, Token, TokenKind
from runyard.wire.job_document import NAME_PATTERN, SHAPES

SECRET_LENGTH_MAX = 200
_TENANT = re.compile(NAME_PATTERN)
DEFAULT_TENANT = "default"

TenantQuery = Annotated[
    str | None,
    Query(
        json_schema_extra={"pattern": NAME_PATTERN},  # judged below, once the token was
        description="For a token of several tenants: which one. Without it, an id that only one of them has is found.",
    ),
]


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was let in, by the credential with this secret."""

    context: ApiContext
    request: Request
    token: Token
    asked_tenant: str | None = None
    secret: str = field(default="", repr=False)

    @property
    def tenants(self) -> tuple[str, ...] | None:
        """Whose things the answer may hold: the tenant that was asked for, else the token's; None is all."""
        if self.asked_tenant is None:
            return self.token.tenants
        if not self.may_see(self.asked_tenant):
            raise _denied(self.token, self.asked_tenant)
        return (self.asked_tenant,)

    def may_see(self, tenant: str) -> bool:
        return self.token.may_see(tenant)

    def tenant_for(self, document: object) -> str:
        """Whose a submitted job is: as the query says, as the document says, the token's only one, `default`."""
        written = document.get("tenant") if isinstance(document, Mapping) else None
        if isinstance(written, str) and self.asked_tenant not in (None, written):
            raise Invalid(
                f"tenant: the document says {written[:100]!r}, the query {self.asked_tenant!r}",
                field="tenant",
                cure="say it in one place",
            )
        tenant = self.asked_tenant or (written if isinstance(written, str) else None) or self._own_tenant()
        if not self.may_see(tenant):
            raise _denied(self.token, tenant)
        return tenant

    def require_all_tenants(self, what: str) -> None:
        """For what is shared by all tenants. Raises Denied for a token that is bound to some."""
        if self.token.tenants is not None:
            raise Denied(
                f"token '{self.token.name}' is for tenants {', '.join(self.token.tenants)}; {what} concerns all",
                cure="use a token that is not bound to tenants",
            )

    def take(self, kind: OpenKind) -> Permit:
        """The right to keep one more of that kind open. Raises TooMany."""
        return self.context.services.bounds.take(self.token, kind)

    def _own_tenant(self) -> str:
        tenants = self.token.tenants
        if tenants is None or DEFAULT_TENANT in tenants:
            return DEFAULT_TENANT
        if len(tenants) == 1:
            return tenants[0]
        raise Invalid(
            "the token is for several tenants, none of them 'default'",
            field="tenant",
            cure=f"say ?tenant= with one of: {', '.join(tenants[:20])}",
        )


def _denied(token: Token, tenant: str) -> Denied:
    return Denied(
        f"token '{token.name}' is not for tenant {tenant[:100]!r}",
        field="tenant",
        cure="leave the tenant out, or use a token that is for it",
    )


Guard = Callable[..., Awaitable[Call]]
GUARDS: dict[Guard, Scope] = {}
"""Every guard and the scope it asks for; a test walks the routes and looks each one's guard up here."""


def _guard(scope: Scope) -> Any:
    async def let_in(request: Request) -> Call:
        return await authorise(request, scope)

    GUARDS[let_in] = scope
    return Depends(let_in)


def _tenant_guard(scope: Scope) -> Any:
    async def let_in(request: Request, tenant: TenantQuery = None) -> Call:
        return await authorise(request, scope, tenant)

    GUARDS[let_in] = scope
    return Depends(let_in)


Reader = Annotated[Call, _guard(Scope.READ)]
Operator = Annotated[Call, _guard(Scope.OPERATE)]
Admin = Annotated[Call, _guard(Scope.ADMIN)]
TenantReader = Annotated[Call, _tenant_guard(Scope.READ)]
TenantSubmitter = Annotated[Call, _tenant_guard(Scope.SUBMIT)]
TenantOperator = Annotated[Call, _tenant_guard(Scope.OPERATE)]


async def authorise(request: Request, scope: Scope, tenant: str | None = None) -> Call:
    """Raises Unauthenticated, Denied, Invalid (the address)."""
    return await admit(request, secret_in(request), scope, tenant, kind=TokenKind.TOKEN)


async def admit(
    request: Request, secret: str, scope: Scope, tenant: str | None = None, *, kind: TokenKind
) -> Call:
    """The request as a call of the credential with this secret, which must be of that kind. Raises as `authorise`."""
    context: ApiContext = request.app.state.context
    token = await find_token(context, secret, kind=kind)
    if not token.scope.includes(scope):
        raise Denied(
            f"token '{token.name}' has scope '{token.scope.value}'; this needs '{scope.value}'",
            cure=f"use a token of scope '{scope.value}', made by `runyard token create`",
        )
    if tenant is not None and not _TENANT.fullmatch(tenant[:100]):
        raise Invalid(f"tenant: {tenant[:100]!r} is no name", field="tenant", cure=SHAPES[NAME_PATTERN].rule)
    check_address(request)
    refuse_unknown_keys(request)
    return Call(context, request, token, tenant, secret)


def check_address(request: Request) -> None:
    """Raises Invalid for what no name can hold: a NUL, or bytes that are not UTF-8."""
    scope = request.scope
    for part in (scope.get("raw_path") or scope["path"].encode(), scope["query_string"]):
        plain = unquote_to_bytes(part) if b"%" in part else part
        try:
            is_text = b"\0" not in plain and plain.decode() is not None
        except UnicodeDecodeError:
            is_text = False
        if not is_text:
            raise Invalid(
                "the address holds a NUL character, or bytes that are not UTF-8",
                field="url",
                cure="leave them out",
            )


def secret_in(request: Request) -> str:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if kind.lower() != "bearer" or not secret:
        raise Unauthenticated(
            "there is no token",
            field="Authorization",
            cure="send the header `Authorization: Bearer ry_…`; `runyard token create` makes a token",
        )
    return secret


async def find_token(context: ApiContext, secret: str, *, kind: TokenKind = TokenKind.TOKEN) -> Token:
    """The credential of that kind with this secret, as it was at most two seconds ago. Raises Unauthenticated."""
    known = None
    if len(secret) <= SECRET_LENGTH_MAX:
        known = await context.tokens.get(hash_secret(secret))
    is_good = known is not None and known.token.kind is kind
    if known is None or not is_good or known.is_expired(context.services.clock.boottime()):
        raise Unauthenticated(
            "the token is unknown, revoked or expired",
            field="Authorization",
            cure="make a new one with `runyard token create`",
        )
    return known.token


def stream(call: Call, kind: OpenKind, frames: AsyncGenerator[bytes, None]) -> EventStream:
    """`frames` for as long as the token is good and the service goes on. Raises TooMany."""
    return EventStream(frames, ended_by_token(call), call.take(kind))


def ended_by_token(call: Call) -> Callable[[float], Awaitable[bool]]:
    """For a stream: whether it is over, because the service is closing or the token is no longer good."""

    async def is_over(_: float) -> bool:
        if call.context.is_closing:
            return True
        try:
            await find_token(call.context, call.secret, kind=call.token.kind)
        except Unauthenticated:
            return True
        return False

    return is_over
