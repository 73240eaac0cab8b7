"""Pools: look, pause and resume here; what needs the provider's answer is asked of the pool's owner."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from runyard.api.access import Call, Operator, Reader
from runyard.api.answers import json_response, operation_answer, pool_answer
from runyard.api.auditing import audit
from runyard.api.description import refusals
from runyard.model.errors import NotFound
from runyard.model.operation import Operation, OperationKind
from runyard.model.pool import Pool
from runyard.wire.answers import OperationAnswer, PoolAnswer, PoolList
from runyard.wire.job_document import NAME_PATTERN

ANSWER_WITHIN_S = 60.0
CARETAKER_WITHIN_S = 5.0
LOOK_S = 0.2  # the owner may be another process, whose topics do not reach this one

router = APIRouter(prefix="/api/v1", tags=["pools"])
PoolName = Annotated[str, Path(pattern=NAME_PATTERN)]
_LATER: dict[int | str, dict[str, Any]] = {
    202: {
        "model": OperationAnswer,
        "description": "The owner has not answered yet; read it again under its id",
    }
}


@router.get("/pools", summary="List pools", response_model=PoolList, responses=refusals())
async def list_pools(call: Reader) -> Response:
    """What each offers, holds and who acts for it."""
    pools = await call.context.services.ledger.list_pools()
    return json_response(PoolList(pools=[pool_answer(pool) for pool in pools]))


@router.get("/pools/{name:name}", summary="One pool", response_model=PoolAnswer, responses=refusals(404))
async def get_pool(call: Reader, name: PoolName) -> Response:
    """What it offers, holds and who acts for it."""
    return json_response(pool_answer(await _pool(call, name)))


@router.post(
    "/pools/{name:name}:pause", summary="Pause a pool", response_model=PoolAnswer, responses=refusals(404)
)
async def pause_pool(call: Operator, name: PoolName) -> Response:
    """It takes no further job. What runs goes on."""
    return await _set_paused(call, name, is_paused=True)


@router.post(
    "/pools/{name:name}:resume", summary="Resume a pool", response_model=PoolAnswer, responses=refusals(404)
)
async def resume_pool(call: Operator, name: PoolName) -> Response:
    """It takes jobs again."""
    return await _set_paused(call, name, is_paused=False)


async def _set_paused(call: Call, name: str, *, is_paused: bool) -> Response:
    call.require_all_tenants(f"pool '{name}'")
    await _pool(call, name)
    pool = await call.context.services.ledger.set_pool_paused(name, is_paused=is_paused)
    call.context.pools.forget()
    await audit(call, "pause" if is_paused else "resume", f"pool {name}")
    return json_response(pool_answer(pool))


@router.post(
    "/pools/{name:name}:check",
    summary="Have a pool's provider checked",
    response_model=OperationAnswer,
    responses={**refusals(404), **_LATER},
)
async def check_pool(call: Operator, name: PoolName) -> Response:
    """The owner asks its provider what is there and what is missing."""
    return await _operate(call, name, OperationKind.CHECK_POOL, {})


@router.post(
    "/pools/{name:name}:forget",
    summary="Declare a pool's host dead",
    response_model=OperationAnswer,
    responses={**refusals(404), **_LATER},
)
async def forget_pool(call: Operator, name: PoolName) -> Response:
    """The operator's word is the proof of death: what ran there is lost, and retried as each job says."""
    return await _operate(call, name, OperationKind.FORGET_POOL, {})


@router.post(
    "/pools/{name:name}:prune",
    summary="Remove what nobody knows",
    response_model=OperationAnswer,
    responses={**refusals(404), **_LATER},
)
async def prune_pool(call: Operator, name: PoolName, dry_run: bool = True) -> Response:
    """Resources of ours without a living attempt. `dry_run`, the default, only lists them."""
    return await _operate(call, name, OperationKind.PRUNE, {"dry_run": dry_run})


@router.get(
    "/pools/{name:name}/operations/{operation:name}",
    summary="What became of a check, forget or prune",
    response_model=OperationAnswer,
    responses=refusals(404),
)
async def get_operation(call: Operator, name: PoolName, operation: str) -> Response:
    """Its `result` is null until the pool's owner answered."""
    call.require_all_tenants(f"pool '{name}'")
    found = await call.context.services.ledger.get_operation(operation)
    if found is None or found.pool != name:
        raise NotFound(
            f"pool '{name}' has no operation {operation[:100]!r}", field="operation", cure="ask again"
        )
    return json_response(operation_answer(found))


async def _operate(call: Call, name: str, kind: OperationKind, arguments: Mapping[str, Any]) -> Response:
    """Asks the owner, and waits a while for what it says."""
    call.require_all_tenants(f"pool '{name}'")
    await _pool(call, name)
    services = call.context.services
    operation = await services.ledger.request_operation(name, kind, arguments)
    await audit(call, kind.value, f"pool {name}", **{key: str(value) for key, value in arguments.items()})
    asked_at = services.clock.boottime()
    while operation.finished_at is None and not await _is_hopeless(call, operation, asked_at):
        await asyncio.sleep(LOOK_S)
        operation = await services.ledger.get_operation(operation.id) or operation
    return json_response(operation_answer(operation), 202 if operation.finished_at is None else 200)


async def _is_hopeless(call: Call, operation: Operation, asked_at: float) -> bool:
    """Whether an answer is not to be waited for. A pool that nobody owns can still be given up: any service's
    caretaker does that soon."""
    waited_s = call.context.services.clock.boottime() - asked_at
    if call.context.is_closing or waited_s >= ANSWER_WITHIN_S:
        return True
    pool = await call.context.services.ledger.get_pool(operation.pool)
    if pool is not None and pool.owner is not None:
        return False
    return operation.kind is not OperationKind.FORGET_POOL or waited_s >= CARETAKER_WITHIN_S


async def _pool(call: Call, name: str) -> Pool:
    pool = await call.context.services.ledger.get_pool(name)
    if pool is None:
        raise NotFound(f"there is no pool {name!r}", field="name", cure="the config file names the pools")
    return pool
