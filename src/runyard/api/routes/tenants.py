"""Tenants: for whom jobs are. One exists by its first job, or by being set here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from runyard.api.access import Call, Operator, Reader
from runyard.api.answers import json_response, tenant_answer
from runyard.api.auditing import audit, changes
from runyard.api.bodies import parse_body, read_body
from runyard.api.description import body_of, refusals
from runyard.api.validation import validate
from runyard.model.errors import Conflict, NotFound
from runyard.model.queue import Tenant, TenantSettings
from runyard.wire.answers import TenantAnswer, TenantList
from runyard.wire.job_document import NAME_PATTERN
from runyard.wire.requests import TenantPut

SETTINGS_BYTES_MAX = 64 << 10

router = APIRouter(prefix="/api/v1", tags=["tenants"])
TenantName = Annotated[str, Path(pattern=NAME_PATTERN)]


@router.get("/tenants", summary="List tenants", response_model=TenantList, responses=refusals())
async def list_tenants(call: Reader) -> Response:
    """Those that the token is for."""
    tenants = await call.context.services.ledger.list_tenants()
    visible = [tenant_answer(tenant) for tenant in tenants if call.may_see(tenant.settings.name)]
    return json_response(TenantList(tenants=visible))


@router.get(
    "/tenants/{name:name}", summary="One tenant", response_model=TenantAnswer, responses=refusals(404)
)
async def get_tenant(call: Reader, name: TenantName) -> Response:
    """Its share, its bounds and its counts over all queues."""
    tenant = await call.context.services.ledger.get_tenant(name) if call.may_see(name) else None
    if tenant is None:
        raise NotFound(f"there is no tenant {name!r}", field="name", cure="its first job makes it")
    return json_response(tenant_answer(tenant))


@router.put(
    "/tenants/{name:name}",
    summary="Set a tenant's share and bounds",
    response_model=TenantAnswer,
    responses=refusals(400, 404, 409, 413, 415),
    openapi_extra=body_of(TenantPut),
)
async def put_tenant(call: Operator, name: TenantName) -> Response:
    """The whole of its settings: what is left out gets its default."""
    call.require_all_tenants(f"the share of tenant '{name}'")
    body = await read_body(call.request, bytes_max=SETTINGS_BYTES_MAX)
    return json_response(tenant_answer(await set_tenant(call, name, await parse_body(call.request, body))))


async def set_tenant(call: Call, name: str, document: object) -> Tenant:
    """What `put_tenant` does, given the document. Raises Denied, Invalid, Conflict (the config file sets it)."""
    call.require_all_tenants(f"the share of tenant '{name}'")
    wish = validate(TenantPut, document)
    ledger = call.context.services.ledger
    present = await ledger.get_tenant(name)
    if present is not None and present.settings.is_configured:
        raise Conflict(
            f"tenant '{name}' is set by the config file",
            field="name",
            cure=f"change [tenants.{name}] there and restart the service",
        )
    settings = TenantSettings(
        name=name, weight=wish.weight, running_max=wish.running_max, queued_max=wish.queued_max
    )
    tenant = await ledger.put_tenant(settings)
    call.context.tenants.forget()
    await audit(call, "set", f"tenant {name}", **changes(wish))
    return tenant
