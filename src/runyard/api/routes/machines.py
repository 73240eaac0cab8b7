"""Machines: there are none until a provider that has machines is built; the routes say so."""

from __future__ import annotations

from typing import NoReturn

from fastapi import APIRouter, Response

from runyard.api.access import Operator, Reader
from runyard.api.answers import json_response
from runyard.api.description import refusals
from runyard.model.errors import NotFound
from runyard.wire.answers import MachineAnswer, MachineList

router = APIRouter(prefix="/api/v1", tags=["machines"])


@router.get("/machines", summary="List machines", response_model=MachineList, responses=refusals())
async def list_machines(call: Reader) -> Response:
    """Rented or registered computers with an agent on them."""
    return json_response(MachineList(machines=[]))


@router.get(
    "/machines/{name:name}", summary="One machine", response_model=MachineAnswer, responses=refusals(404)
)
async def get_machine(call: Reader, name: str) -> Response:
    """Its pool and its state."""
    _refuse(name)


@router.post(
    "/machines/{name:name}:drain",
    summary="Take no more jobs to a machine",
    response_model=MachineAnswer,
    responses=refusals(404),
)
async def drain_machine(call: Operator, name: str) -> Response:
    """What runs there goes on to its end."""
    _refuse(name)


@router.post(
    "/machines/{name:name}:undrain",
    summary="Let a machine work again",
    response_model=MachineAnswer,
    responses=refusals(404),
)
async def undrain_machine(call: Operator, name: str) -> Response:
    """It takes jobs again."""
    _refuse(name)


def _refuse(name: str) -> NoReturn:
    raise NotFound(
        f"there is no machine {name[:100]!r}", field="name", cure="no pool of this service has machines"
    )
