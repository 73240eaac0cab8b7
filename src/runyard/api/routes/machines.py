"""Machines: rented or registered computers with an agent on them, as the ledger's rows have them."""

from __future__ import annotations

from fastapi import APIRouter, Response

from runyard.api.access import Call, Operator, Reader
from runyard.api.answers import json_response, machine_answer
from runyard.api.description import refusals
from runyard.model.errors import Conflict, NotFound
from runyard.model.machine import Machine
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
    responses=refusals(404, 409),
)
async def drain_machine(call: Operator, name: str) -> Response:
    """Refused (409): a machine's end is its pool's to decide, until its provider can be asked for it."""
    raise _not_by_hand(await _machine(call, name), "drained")


@router.post(
    "/machines/{name:name}:undrain",
    summary="Let a machine work again",
    response_model=MachineAnswer,
    responses=refusals(404, 409),
)
async def undrain_machine(call: Operator, name: str) -> Response:
    """Refused (409), as a drain is."""
    raise _not_by_hand(await _machine(call, name), "undrained")


async def _machine(call: Call, name: str) -> Machine:
    machine = await call.context.services.ledger.get_machine(name)
    if machine is None:
        raise NotFound(
            f"there is no machine {name[:100]!r}",
            field="name",
            cure="`runyard machines` lists those that there are",
        )
    return machine


def _not_by_hand(machine: Machine, done: str) -> Conflict:
    return Conflict(
        f"machine '{machine.name}' cannot be {done} by hand: pool '{machine.pool}' decides when its machines end",
        field="name",
        cure=f"pause the pool, `runyard pool pause {machine.pool}`, and it takes nothing new on any machine",
    )
