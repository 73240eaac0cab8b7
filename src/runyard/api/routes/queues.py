"""Queues: the lanes that share capacity. What the config file sets is read-only here; pausing is always possible."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Response

from runyard.api.access import Call, Operator, Reader
from runyard.api.answers import json_response, queue_answer
from runyard.api.auditing import audit, changes
from runyard.api.bodies import parse_body, read_body
from runyard.api.description import body_of, refusals
from runyard.api.submission import check_queue_defaults
from runyard.api.validation import validate
from runyard.model.errors import Conflict, NotFound
from runyard.model.queue import Queue, QueueSettings
from runyard.wire.answers import QueueAnswer, QueueList
from runyard.wire.job_document import NAME_PATTERN
from runyard.wire.requests import QueuePut

SETTINGS_BYTES_MAX = 1 << 20

router = APIRouter(prefix="/api/v1", tags=["queues"])
QueueName = Annotated[str, Path(pattern=NAME_PATTERN)]


@router.get("/queues", summary="List queues", response_model=QueueList, responses=refusals())
async def list_queues(call: Reader) -> Response:
    """With what waits and runs in each, over all tenants."""
    queues = await call.context.services.ledger.list_queues()
    return json_response(QueueList(queues=[queue_answer(queue) for queue in queues]))


@router.get("/queues/{name:name}", summary="One queue", response_model=QueueAnswer, responses=refusals(404))
async def get_queue(call: Reader, name: QueueName) -> Response:
    """Its settings and counts."""
    return json_response(queue_answer(await _queue(call, name)))


@router.put(
    "/queues/{name:name}",
    summary="Make or set a queue",
    response_model=QueueAnswer,
    responses=refusals(400, 404, 409, 413, 415),
    openapi_extra=body_of(QueuePut),
)
async def put_queue(call: Operator, name: QueueName) -> Response:
    """The whole of its settings: what is left out gets its default. Whether it is paused stays as it is."""
    call.require_all_tenants(f"queue '{name}'")
    body = await read_body(call.request, bytes_max=SETTINGS_BYTES_MAX)
    return json_response(queue_answer(await set_queue(call, name, await parse_body(call.request, body))))


async def set_queue(call: Call, name: str, document: object) -> Queue:
    """What `put_queue` does, given the document. Raises Denied, Invalid, Conflict (the config file sets it)."""
    call.require_all_tenants(f"queue '{name}'")
    wish = validate(QueuePut, document)
    check_queue_defaults(wish.defaults)
    present = await call.context.services.ledger.get_queue(name)
    if present is not None and present.settings.is_configured:
        raise _configured(name)
    settings = QueueSettings(
        name=name,
        weight=wish.weight,
        running_max=wish.running_max,
        queued_max=wish.queued_max,
        tenant_running_max=wish.tenant_running_max,
        defaults=wish.defaults,
        is_paused=present is not None and present.settings.is_paused,
    )
    queue = await _put(call, settings)
    await audit(call, "set", f"queue {name}", **changes(wish))
    return queue


@router.delete("/queues/{name:name}", summary="Delete a queue", status_code=204, responses=refusals(404, 409))
async def delete_queue(call: Operator, name: QueueName) -> Response:
    """409 while it holds unfinished jobs, for the queue `default`, and for one that the config file makes."""
    call.require_all_tenants(f"queue '{name}'")
    if (await _queue(call, name)).settings.is_configured:
        raise _configured(name)
    await call.context.services.ledger.delete_queue(name)
    call.context.queues.forget()
    await audit(call, "delete", f"queue {name}")
    return Response(status_code=204)


@router.post(
    "/queues/{name:name}:pause", summary="Pause a queue", response_model=QueueAnswer, responses=refusals(404)
)
async def pause_queue(call: Operator, name: QueueName) -> Response:
    """It takes jobs, and none of them starts. What runs goes on."""
    return await _set_paused(call, name, is_paused=True)


@router.post(
    "/queues/{name:name}:resume",
    summary="Resume a queue",
    response_model=QueueAnswer,
    responses=refusals(404),
)
async def resume_queue(call: Operator, name: QueueName) -> Response:
    """Its jobs start again, in their order."""
    return await _set_paused(call, name, is_paused=False)


async def _set_paused(call: Call, name: str, *, is_paused: bool) -> Response:
    call.require_all_tenants(f"queue '{name}'")
    queue = await _queue(call, name)
    answer = json_response(queue_answer(await _put(call, replace(queue.settings, is_paused=is_paused))))
    await audit(call, "pause" if is_paused else "resume", f"queue {name}")
    return answer


async def _put(call: Call, settings: QueueSettings) -> Queue:
    queue = await call.context.services.ledger.put_queue(settings)
    call.context.queues.forget()
    return queue


async def _queue(call: Call, name: str) -> Queue:
    queue = await call.context.services.ledger.get_queue(name)
    if queue is None:
        raise NotFound(
            f"there is no queue {name!r}", field="name", cure="PUT /api/v1/queues/{name} makes one"
        )
    return queue


def _configured(name: str) -> Conflict:
    return Conflict(
        f"queue '{name}' is set by the config file",
        field="name",
        cure=f"change [queues.{name}] there and restart the service",
    )
