"""Machines: rented or registered computers with an agent on them, as the ledger's rows have them."""

from __future__ import annotations

from fastapi import APIRouter, Response

from runyard.api.access import Call, Operator, Reader
from runyard.api.answers import json_response, machine_answer
from runyard.api.auditing import audit
from runyard.api.description import refusals
from runyard.ledger.refusals import no_machine
from runyard.model.errors import Conflict
from runyard.model.machine import Machine, MachineState
from runyard.wire.answers import MachineAnswer, MachineList

router = APIRouter(prefix="/api/v1", tags=["machines"])


@router.get("/machines", summary="List machines", response_model=MachineList, responses=refusals())
async def list_machines(call: Reader) -> Response:
    """Of all pools, by pool and name; those that are gone are left out."""
    ledger = call.context.services.ledger
    found = [
        machine_answer(machine)
        for pool in await ledger.list_pools()
        for machine in await ledger.list_machines(pool.settings.name)
    ]
    return json_response(MachineList(machines=found))


@router.get(
    "/machines/{name:name}", summary="One machine", response_model=MachineAnswer, responses=refusals(404)
)
async def get_machine(call: Reader, name: str) -> Response:
    """Its pool, its state and what it holds."""
    return json_response(machine_answer(await _machine(call, name)))


@router.post(
    "/machines/{name:name}:drain",
    summary="Take no more jobs to a machine",
    response_model=MachineAnswer,
    responses=refusals(404),
)
async def drain_machine(call: Operator, name: str) -> Response:
    """What runs on it goes on; once it holds nothing it ends."""
    return await _set_drained(call, name, is_drained=True)


@router.post(
    "/machines/{name:name}:undrain",
    summary="Let a machine work again",
    response_model=MachineAnswer,
    responses=refusals(404, 409),
)
async def undrain_machine(call: Operator, name: str) -> Response:
    """Takes a drain back, as long as the machine is not ending."""
    return await _set_drained(call, name, is_drained=False)


async def _set_drained(call: Call, name: str, *, is_drained: bool) -> Response:
    call.require_all_tenants(f"machine '{name[:100]}'")
    await _machine(call, name)
    machine = await call.context.services.ledger.set_machine_drained(name, is_drained=is_drained)
    if not is_drained and machine.state in (MachineState.ENDING, MachineState.GONE):
        raise Conflict(
            f"machine '{name}' is {machine.state.value} already",
            field="name",
            cure=f"pool '{machine.pool}' makes another one when jobs need it",
        )
    await audit(call, "drain" if is_drained else "undrain", f"machine {name}")
    return json_response(machine_answer(machine))


async def _machine(call: Call, name: str) -> Machine:
    machine = await call.context.services.ledger.get_machine(name)
    if machine is None:
        raise no_machine(name)
    return machine
