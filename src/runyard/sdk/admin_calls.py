"""The requests about queues, tenants, pools, machines, tokens and secrets: pure values, shared by both clients."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runyard.sdk.call import Call, query_of, route
from runyard.sdk.job_calls import answer, encode, nothing

if TYPE_CHECKING:
    from runyard.wire.answers import (
        AuditPage,
        LinkAnswer,
        MachineAnswer,
        OperationAnswer,
        PoolAnswer,
        QueueAnswer,
        RotationAnswer,
        SecretAnswer,
        TenantAnswer,
        TokenAnswer,
    )

OWNER_ANSWERS_WITHIN_S = 90.0
"""An operation waits for the pool's owner; the service says itself when none came."""

ROTATION_WITHIN_S = 600.0


def _get(what: str, path: str, model: str) -> Call[Any]:
    return Call(what=what, method="GET", path=path, parse=answer(model))


def _list(noun: str, model: str) -> Call[Any]:
    """The answer `{"queues": [..]}` is read as the list itself."""
    read = answer(model)
    return Call(
        what=f"list {noun}", method="GET", path=route(noun), parse=lambda body: getattr(read(body), noun)
    )


def _post(what: str, path: str, model: str, *, timeout_s: float = 30.0) -> Call[Any]:
    """A change that is the same when made twice."""
    return Call(what=what, method="POST", path=path, parse=answer(model), timeout_s=timeout_s)


def _put(what: str, path: str, model: str, settings: Mapping[str, Any]) -> Call[Any]:
    return Call(what=what, method="PUT", path=path, parse=answer(model), body=encode(dict(settings)))


def list_queues() -> Call[list[QueueAnswer]]:
    return _list("queues", "QueueList")


def get_queue(name: str) -> Call[QueueAnswer]:
    return _get(f"read queue '{name}'", route("queues", name), "QueueAnswer")


def put_queue(name: str, settings: Mapping[str, Any]) -> Call[QueueAnswer]:
    return _put(f"set queue '{name}'", route("queues", name), "QueueAnswer", settings)


def pause_queue(name: str) -> Call[QueueAnswer]:
    return _post(f"pause queue '{name}'", route("queues", name) + ":pause", "QueueAnswer")


def resume_queue(name: str) -> Call[QueueAnswer]:
    return _post(f"resume queue '{name}'", route("queues", name) + ":resume", "QueueAnswer")


def delete_queue(name: str) -> Call[None]:
    return Call(what=f"delete queue '{name}'", method="DELETE", path=route("queues", name), parse=nothing)


def list_tenants() -> Call[list[TenantAnswer]]:
    return _list("tenants", "TenantList")


def get_tenant(name: str) -> Call[TenantAnswer]:
    return _get(f"read tenant '{name}'", route("tenants", name), "TenantAnswer")


def put_tenant(name: str, settings: Mapping[str, Any]) -> Call[TenantAnswer]:
    return _put(f"set tenant '{name}'", route("tenants", name), "TenantAnswer", settings)


def list_pools() -> Call[list[PoolAnswer]]:
    return _list("pools", "PoolList")


def get_pool(name: str) -> Call[PoolAnswer]:
    return _get(f"read pool '{name}'", route("pools", name), "PoolAnswer")


def pause_pool(name: str) -> Call[PoolAnswer]:
    return _post(f"pause pool '{name}'", route("pools", name) + ":pause", "PoolAnswer")


def resume_pool(name: str) -> Call[PoolAnswer]:
    return _post(f"resume pool '{name}'", route("pools", name) + ":resume", "PoolAnswer")


def check_pool(name: str) -> Call[OperationAnswer]:
    return _operation(f"check pool '{name}'", name, "check")


def forget_pool(name: str) -> Call[OperationAnswer]:
    return _operation(f"forget pool '{name}'", name, "forget")


def prune_pool(name: str, *, is_dry_run: bool) -> Call[OperationAnswer]:
    return Call(
        what=f"prune pool '{name}'",
        method="POST",
        path=route("pools", name) + ":prune",
        query=query_of(dry_run="true" if is_dry_run else "false"),
        parse=answer("OperationAnswer"),
        timeout_s=OWNER_ANSWERS_WITHIN_S,
    )


def _operation(what: str, name: str, verb: str) -> Call[OperationAnswer]:
    path = route("pools", name) + f":{verb}"
    return _post(what, path, "OperationAnswer", timeout_s=OWNER_ANSWERS_WITHIN_S)


def list_machines() -> Call[list[MachineAnswer]]:
    return _list("machines", "MachineList")


def get_machine(name: str) -> Call[MachineAnswer]:
    return _get(f"read machine '{name}'", route("machines", name), "MachineAnswer")


def drain_machine(name: str) -> Call[MachineAnswer]:
    return _post(f"drain machine '{name}'", route("machines", name) + ":drain", "MachineAnswer")


def undrain_machine(name: str) -> Call[MachineAnswer]:
    return _post(f"undrain machine '{name}'", route("machines", name) + ":undrain", "MachineAnswer")


def list_tokens() -> Call[list[TokenAnswer]]:
    return _list("tokens", "TokenList")


def create_token(settings: Mapping[str, Any]) -> Call[TokenAnswer]:
    """Not repeatable: the secret is shown once, each request makes one more."""
    return Call(
        what=f"create token '{settings.get('name')}'",
        method="POST",
        path=route("tokens"),
        body=encode(dict(settings)),
        parse=answer("TokenAnswer"),
        is_repeatable=False,
    )


def delete_token(token_id: str) -> Call[None]:
    return Call(
        what=f"revoke token '{token_id}'", method="DELETE", path=route("tokens", token_id), parse=nothing
    )


def list_secrets(tenant: str | None) -> Call[list[SecretAnswer]]:
    read = answer("SecretList")
    return Call(
        what="list secrets",
        method="GET",
        path=route("secrets"),
        query=query_of(tenant=tenant),
        parse=lambda body: read(body).secrets,
    )


def put_secret(
    name: str, value: str | bytes, *, tenant: str | None, queues: Sequence[str] | None
) -> Call[SecretAnswer]:
    """Always as base64: so it passes every reader as it is."""
    plain = value.encode() if isinstance(value, str) else value
    document = {
        "base64": base64.b64encode(plain).decode(),
        "queues": None if queues is None else list(queues),
    }
    return Call(
        what=f"set secret '{name}'",
        method="PUT",
        path=route("secrets", name),
        query=query_of(tenant=tenant),
        body=encode(document),
        parse=answer("SecretAnswer"),
    )


def delete_secret(name: str, *, tenant: str | None) -> Call[None]:
    return Call(
        what=f"delete secret '{name}'",
        method="DELETE",
        path=route("secrets", name),
        query=query_of(tenant=tenant),
        parse=nothing,
    )


def rotate_secrets() -> Call[RotationAnswer]:
    return _post("rotate secrets", route("secrets:rotate"), "RotationAnswer", timeout_s=ROTATION_WITHIN_S)


def create_link() -> Call[LinkAnswer]:
    """Not repeatable: each request makes one more."""
    return Call(
        what="make a sign-in link",
        method="POST",
        path=route("sign-in-links"),
        parse=answer("LinkAnswer"),
        is_repeatable=False,
    )


def list_audit(*, before: int | None, limit: int) -> Call[AuditPage]:
    query = query_of(before=before, limit=limit)
    return Call(
        what="list the audit", method="GET", path=route("audit"), query=query, parse=answer("AuditPage")
    )
