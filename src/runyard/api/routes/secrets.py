"""Secrets: set, listed without their values, deleted, sealed anew. No answer and no error ever holds a value (I11)."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import SecretStr

from runyard.api.access import Admin, Call, TenantOperator, TenantReader
from runyard.api.answers import json_response, secret_answer
from runyard.api.auditing import audit
from runyard.api.bodies import parse_body, read_body
from runyard.api.description import body_of, refusals
from runyard.api.errors import InvalidDocument, Malformed
from runyard.api.validation import validate
from runyard.logs.masking import VALUE_BYTES_MIN
from runyard.model.errors import Invalid
from runyard.model.secret import VALUE_BYTES_MAX, StoredSecret
from runyard.wire.answers import RotationAnswer, SecretAnswer, SecretList
from runyard.wire.job_document import SECRET_NAME_PATTERN
from runyard.wire.requests import SecretPut

BODY_BYTES_MAX = 512 << 10
_TOLD = ("queues",)

router = APIRouter(prefix="/api/v1", tags=["secrets"])
SecretPathName = Annotated[str, Path(pattern=SECRET_NAME_PATTERN)]


@router.get("/secrets", summary="List secrets", response_model=SecretList, responses=refusals())
async def list_secrets(call: TenantReader) -> Response:
    """What they are called and when they were used; their values are told to nobody."""
    return json_response(SecretList(secrets=[_answer(call, one) for one in await visible_secrets(call)]))


async def visible_secrets(call: Call) -> list[StoredSecret]:
    """Those of the tenants that the call is for."""
    store = call.context.services.secrets
    if call.tenants is None:
        return await store.list(None)
    return [secret for tenant in call.tenants for secret in await store.list(tenant)]


@router.put(
    "/secrets/{name:name}",
    summary="Set a secret",
    response_model=SecretAnswer,
    responses=refusals(400, 404, 413, 415),
    openapi_extra=body_of(SecretPut),
)
async def put_secret(call: TenantOperator, name: SecretPathName) -> Response:
    """Makes or replaces it; attempts that have the old value keep it."""
    body = await read_body(call.request, bytes_max=BODY_BYTES_MAX)
    try:
        wish = validate(SecretPut, await parse_body(call.request, body))
        value = _value_of(wish)
    except Invalid as error:
        raise _without_value(error) from None
    queues = None if wish.queues is None else tuple(wish.queues)
    return json_response(_answer(call, await set_secret(call, name, value, queues)))


async def set_secret(call: Call, name: str, value: bytes, queues: tuple[str, ...] | None) -> StoredSecret:
    """What `put_secret` does, given the value. Raises Invalid, Denied, SecretsUnavailable."""
    if not VALUE_BYTES_MIN <= len(value) <= VALUE_BYTES_MAX:
        raise Invalid(
            f"value: a secret has from {VALUE_BYTES_MIN} to {VALUE_BYTES_MAX} bytes, not {len(value)}",
            field="value",
            cure="a shorter one cannot be masked in a log; put a longer one into files of its own",
        )
    tenant = call.tenant_for({})
    store = call.context.services.secrets
    secret = await store.put(tenant, name, value, queues=queues, by=call.token.name)
    await audit(call, "set", f"secret {tenant}/{name}", queues="all" if queues is None else ", ".join(queues))
    return secret


@router.delete("/secrets/{name:name}", summary="Delete a secret", status_code=204, responses=refusals(404))
async def delete_secret(call: TenantOperator, name: str) -> Response:
    """Jobs that name it are refused from now on; attempts that have it keep it."""
    tenant = call.tenant_for({})
    await call.context.services.secrets.delete(tenant, name)
    await audit(call, "delete", f"secret {tenant}/{name}")
    return Response(status_code=204)


@router.post(
    "/secrets:rotate",
    summary="Seal all secrets with the first key",
    response_model=RotationAnswer,
    responses=refusals(),
)
async def rotate_secrets(call: Admin) -> Response:
    """After a new key was put first in `secrets.keys`. One that stopped half-way goes on."""
    call.require_all_tenants("the keys of all secrets")
    done = await call.context.services.secrets.rotate()
    await audit(call, "rotate", "secrets", key=done.key_id, resealed=f"{done.resealed}")
    answer = RotationAnswer(key_id=done.key_id, resealed=done.resealed, unreadable=dict(done.unreadable))
    return json_response(answer)


def _answer(call: Call, secret: StoredSecret) -> SecretAnswer:
    return secret_answer(secret, is_readable=call.context.services.secrets.is_readable(secret))


def _value_of(wish: SecretPut) -> bytes:
    """Raises Invalid."""
    try:
        if wish.value is not None:
            return wish.value.get_secret_value().encode()
        return base64.b64decode((wish.base64 or SecretStr("")).get_secret_value(), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise Invalid(
            "base64: it is no base64" if wish.value is None else "value: it is no valid Unicode",
            field="base64" if wish.value is None else "value",
        ) from None


def _without_value(error: Invalid) -> Invalid:
    """What was wrong, in words that repeat nothing of what was sent: wherever it stood, it may be the secret."""
    problems = [error, *(error.more if isinstance(error, InvalidDocument) else ())]
    told = [problem for problem in problems if (problem.field or "").partition(".")[0] in _TOLD]
    if told:
        return InvalidDocument(told)
    kind = Malformed if isinstance(error, Malformed) else Invalid
    return kind(
        "the body is no secret as it is sent here; what is wrong with it is not repeated",
        field=error.field if error.field in ("value", "base64") else "body",
        cure='send {"value": text} or {"base64": bytes}, with "queues" if it is for some alone',
    )
