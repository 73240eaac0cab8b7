"""Tokens: made, listed, revoked. A secret is shown once; an admin bound to tenants sees and gives only what is its."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Response

from runyard.api.access import Admin, Call
from runyard.api.answers import json_response, token_answer
from runyard.api.auditing import audit
from runyard.api.bodies import parse_body, read_body
from runyard.api.description import body_of, refusals
from runyard.api.secret import hash_secret, new_secret, new_uid
from runyard.api.validation import validate
from runyard.model.errors import Denied, NotFound
from runyard.model.token import Scope, Token
from runyard.wire.answers import TokenAnswer, TokenList
from runyard.wire.requests import TokenPost

SETTINGS_BYTES_MAX = 256 << 10

router = APIRouter(prefix="/api/v1", tags=["tokens"])


@router.post(
    "/tokens",
    summary="Make a token",
    status_code=201,
    response_model=TokenAnswer,
    responses=refusals(400, 413, 415),
    openapi_extra=body_of(TokenPost),
)
async def create_token(call: Admin) -> Response:
    """The answer holds the secret, this once."""
    body = await read_body(call.request, bytes_max=SETTINGS_BYTES_MAX)
    token, secret = await make_token(call, await parse_body(call.request, body))
    return json_response(token_answer(token, secret), 201)


async def make_token(call: Call, document: object) -> tuple[Token, str]:
    """The token and its secret, given the document of `create_token`. Raises Invalid, Denied."""
    wish = validate(TokenPost, document)
    if not covers(call, wish.tenants):
        raise Denied(
            f"token '{call.token.name}' cannot give what is beyond its own tenants",
            field="tenants",
            cure=f"name some of: {', '.join(call.token.tenants or ())}",
        )
    ledger = call.context.services.ledger
    secret = new_secret()
    now = await ledger.now()
    token = Token(
        id=new_uid(),
        name=wish.name,
        secret_hash=hash_secret(secret),
        scope=Scope(wish.scope),
        tenants=None if wish.tenants is None else tuple(wish.tenants),
        created_at=now,
        expires_at=None if wish.expires_in is None else now + wish.expires_in,
    )
    await ledger.put_token(token)
    await audit(call, "create", f"token {token.id}", name=token.name, scope=token.scope.value)
    return token, secret


@router.get("/tokens", summary="List tokens", response_model=TokenList, responses=refusals())
async def list_tokens(call: Admin) -> Response:
    """Without their secrets, which nobody has but their holders."""
    tokens = await call.context.services.ledger.list_tokens()
    visible = [token_answer(token) for token in tokens if covers(call, token.tenants)]
    return json_response(TokenList(tokens=visible))


@router.delete("/tokens/{id:name}", summary="Revoke a token", status_code=204, responses=refusals(404))
async def delete_token(call: Admin, id: str) -> Response:
    """Refused from now on; at the service's other processes within two seconds."""
    ledger = call.context.services.ledger
    ours = [token.id for token in await ledger.list_tokens() if covers(call, token.tenants)]
    if id not in ours or not await ledger.delete_token(id):
        raise NotFound(f"there is no token {id[:100]!r}", field="id", cure="`runyard token list` lists them")
    call.context.tokens.forget()
    await audit(call, "revoke", f"token {id}")
    return Response(status_code=204)


def covers(call: Call, tenants: Sequence[str] | None) -> bool:
    """Whether the caller's own tenants include all of these."""
    own = call.token.tenants
    return own is None or (tenants is not None and set(tenants) <= set(own))
