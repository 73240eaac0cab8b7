"""Submitting jobs: under an id of the caller's, without one, many at once, and again."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter, Response

from runyard.api.access import Call, TenantSubmitter
from runyard.api.answers import job_answer, json_response
from runyard.api.bodies import off_loop_if_large, parse_body, read_body
from runyard.api.description import body_of, refusals
from runyard.api.errors import error_body
from runyard.api.job_answering import answer_job
from runyard.api.job_lookup import find_job
from runyard.api.secret import new_uid
from runyard.api.secret_rules import check_secrets, refuse_without_secrets
from runyard.api.submission import (
    NoPoolFits,
    Prepared,
    Submitter,
    Surroundings,
    prepare_each,
    prepare_job,
    queue_named,
)
from runyard.api.validation import validate
from runyard.ledger.port import Submitted
from runyard.model.errors import Conflict, RunyardError
from runyard.model.job import NewJob
from runyard.wire.answers import BatchAnswer, BatchItem, ErrorBody, JobAnswer
from runyard.wire.job_document import DOCUMENT_BYTES_MAX, BatchDocument, JobDocument, JobId
from runyard.wire.requests import RetryPost

BATCH_BYTES_MAX = 16 << 20
SMALL_BYTES_MAX = 64 << 10

router = APIRouter(prefix="/api/v1", tags=["jobs"])
_CREATED: dict[int | str, dict[str, Any]] = {201: {"model": JobAnswer, "description": "It is a new job"}}


@router.put(
    "/jobs/{id:name}",
    summary="Submit a job under an id of yours",
    response_model=JobAnswer,
    responses={**refusals(400, 404, 409, 413, 415, 429), **_CREATED},
    openapi_extra=body_of(JobDocument),
)
async def put_job(call: TenantSubmitter, id: JobId) -> Response:
    """Safe to repeat: 201 for a new job, 200 when the same document is there already, 409 for another one."""
    return await _submit_one(call, job_id=id)


@router.post(
    "/jobs",
    summary="Submit a job",
    response_model=JobAnswer,
    responses={**refusals(400, 404, 409, 413, 415, 429), **_CREATED},
    openapi_extra=body_of(JobDocument),
)
async def post_job(call: TenantSubmitter) -> Response:
    """Without an id in the document every request makes one more job; the answer names it."""
    return await _submit_one(call)


async def _submit_one(call: Call, *, job_id: str | None = None) -> Response:
    body = await read_body(call.request, bytes_max=DOCUMENT_BYTES_MAX)
    document = await parse_body(call.request, body)
    submitter = _submitter_of(call, document)
    surroundings = await _surroundings(call, [document])

    def prepare() -> Prepared:
        return prepare_job(document, submitter, surroundings, job_id=job_id)

    try:
        prepared = await off_loop_if_large(len(body), prepare)
    except NoPoolFits:  # the pools may be a second old: a refusal is said by the pools of now
        surroundings = dataclasses.replace(surroundings, pools=await call.context.pools.refresh(None))
        prepared = await off_loop_if_large(len(body), prepare)
    return await _store(call, prepared.job, prepared.warnings)


async def _store(call: Call, job: NewJob, warnings: tuple[str, ...] = ()) -> Response:
    await check_secrets(call, job)
    [answer] = await call.context.services.ledger.submit([job])
    if isinstance(answer, Exception):
        raise answer
    if answer.is_new:
        return json_response(
            job_answer(answer.job, (), warnings), 201, {"Location": f"/api/v1/jobs/{job.id}"}
        )
    return await answer_job(call, answer.job)


def _submitter_of(call: Call, document: object) -> Submitter:
    return Submitter(tenant=call.tenant_for(document), name=call.token.name)


async def _surroundings(call: Call, documents: list[Any]) -> Surroundings:
    """The defaults of every queue that the documents name, and the pools."""
    names = {queue_named(document) for document in documents}
    queues = {
        name: await call.context.queues.get(name) for name in names if len(name) <= 63 and "\0" not in name
    }
    defaults = {name: queue.settings.defaults for name, queue in queues.items() if queue is not None}
    return Surroundings(defaults=defaults, pools=await call.context.pools.get(None))


@router.post(
    "/jobs:batch",
    summary="Submit up to 1,000 jobs",
    response_model=BatchAnswer,
    responses=refusals(400, 413, 415),
    openapi_extra=body_of(BatchDocument),
)
async def post_batch(call: TenantSubmitter) -> Response:
    """One item per job, in order, with its id or its error: a wrong job does not hold back the others."""
    body = await read_body(call.request, bytes_max=BATCH_BYTES_MAX)
    batch = validate(BatchDocument, await parse_body(call.request, body))
    surroundings = await _surroundings(call, batch.jobs)

    def prepare() -> list[Prepared | RunyardError]:
        return prepare_each(batch.jobs, lambda document: _submitter_of(call, document), surroundings)

    prepared = await refuse_without_secrets(call, await off_loop_if_large(len(body), prepare))
    jobs = [item.job for item in prepared if isinstance(item, Prepared)]
    stored = iter(await call.context.services.ledger.submit(jobs) if jobs else ())
    items = [_batch_item(next(stored) if isinstance(item, Prepared) else item) for item in prepared]
    return json_response(BatchAnswer(jobs=items))


def _batch_item(answer: Submitted | Exception) -> BatchItem:
    if isinstance(answer, Submitted):
        return BatchItem(id=answer.job.id)
    if isinstance(answer, RunyardError):
        return BatchItem(error=ErrorBody.model_validate(error_body(answer)))
    raise answer


@router.post(
    "/jobs/{id:name}:retry",
    summary="Run a final job again, as a new job",
    response_model=JobAnswer,
    responses={**refusals(400, 404, 409, 413, 415, 429), **_CREATED},
    openapi_extra=body_of(RetryPost, is_required=False),
)
async def retry_job(call: TenantSubmitter, id: str) -> Response:
    """The new job has `retry_of`, and a fresh id unless the body names one."""
    body = await read_body(call.request, bytes_max=SMALL_BYTES_MAX)
    wish = validate(RetryPost, await parse_body(call.request, body)) if body.strip() else RetryPost()
    return await retry_as(call, id, wish)


async def retry_as(call: Call, id: str, wish: RetryPost) -> Response:
    """What `retry_job` does, given what its body says."""
    job = await find_job(call, id)
    if not job.state.is_final:
        raise Conflict(
            f"job '{job.id}' is {job.state.value}; only a final job is retried",
            field="id",
            cure="wait for its end, or cancel it first",
        )
    if wish.id == job.id:
        raise Conflict(f"the id '{job.id}' is that of the job itself", field="id", cure="choose another id")
    uid = new_uid()
    again = NewJob(
        uid=uid,
        id=wish.id or uid,
        spec=job.spec,
        spec_hash=job.spec_hash,
        submitted_by=call.token.name,
        retry_of=job.id,
    )
    return await _store(call, again)
