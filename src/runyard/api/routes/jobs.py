"""Jobs that are there: list, look, wait, cancel, delete, ask why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from runyard.api.access import Call, TenantReader, TenantSubmitter
from runyard.api.answers import job_row, json_response, listing_response, time_of
from runyard.api.auditing import audit
from runyard.api.description import refusals
from runyard.api.job_answering import answer_job
from runyard.api.job_lookup import find_job
from runyard.api.listing import exit_codes_of, job_filter, moment_of
from runyard.model.errors import Invalid, NotFound
from runyard.model.job import Job
from runyard.model.waiting import WaitReason
from runyard.policy.explain import explain, place_in_order
from runyard.wire.answers import JobAnswer, JobPage, JobStateWord, WaitReasonAnswer, WhyAnswer
from runyard.wire.moments import RFC_3339
from runyard.wire.units import parse_duration

WAIT_S_MAX = 600.0
REREAD_S = 5.0  # the timer behind the subscription

router = APIRouter(prefix="/api/v1", tags=["jobs"])


@router.get(
    "/jobs",
    summary="List jobs, newest first",
    response_model=JobPage,
    responses=refusals(),
)
async def list_jobs(
    call: TenantReader,
    queue: str | None = None,
    state: Annotated[list[JobStateWord] | None, Query()] = None,
    label: Annotated[list[str] | None, Query(description="key=value; all that are given must match")] = None,
    pool: str | None = None,
    text: Annotated[str | None, Query(max_length=200, description="a part of the id or the name")] = None,
    since: Annotated[
        str | None, Query(max_length=40, description=f"submitted then or later; {RFC_3339}")
    ] = None,
    until: Annotated[str | None, Query(max_length=40, description=f"submitted before; {RFC_3339}")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """The short form: without `effective`, `attempts` and `warnings`. Go on with `cursor` set to the page's `next`."""
    filter_ = job_filter(
        call.tenants,
        queue=queue,
        states=state,
        labels=label,
        pool=pool,
        text=text,
        since=moment_of(since, field="since"),
        until=moment_of(until, field="until"),
    )
    ledger = call.context.services.ledger
    page = await ledger.list_jobs(filter_, limit=limit, cursor=cursor)
    codes = await exit_codes_of(ledger, page.jobs)
    rows = [job_row(job, codes.get(job.uid)) for job in page.jobs]
    return listing_response(JobPage(jobs=rows, next=page.next_cursor))


@router.get(
    "/jobs/{id:name}",
    summary="One job, at once or when it is final",
    response_model=JobAnswer,
    responses=refusals(404, 409),
)
async def get_job(
    call: TenantReader,
    id: str,
    wait: Annotated[
        str | None, Query(max_length=40, description="e.g. 30s: answer when final, or after that")
    ] = None,
) -> Response:
    """With `wait` the answer comes as soon as the job is final, and after that time with the job as it stands."""
    wait_s = _wait_seconds(wait)
    job = await find_job(call, id)
    if wait_s > 0 and not job.state.is_final:
        job = await _wait_until_final(call, job, wait_s)
    return await answer_job(call, job)


def _wait_seconds(text: str | None) -> float:
    if text is None or text in ("0", "0s"):
        return 0.0
    try:
        return min(parse_duration(float(text) if text.replace(".", "", 1).isdecimal() else text), WAIT_S_MAX)
    except ValueError as error:
        raise Invalid(f"wait: {error}", field="wait", cure="write it like 30s or 5m") from None


async def _wait_until_final(call: Call, job: Job, wait_s: float) -> Job:
    ledger, clock = call.context.services.ledger, call.context.services.clock
    deadline = clock.boottime() + wait_s
    subscription = ledger.subscribe(f"job:{job.uid}")
    try:
        while True:
            current = await ledger.get_job(job.uid)
            rest_s = deadline - clock.boottime()
            if current is None:
                raise NotFound(f"job '{job.id}' was deleted meanwhile", field="id", cure="submit it again")
            is_gone = await call.request.is_disconnected()
            if current.state.is_final or rest_s <= 0 or call.context.is_closing or is_gone:
                return current
            await call.context.wait(subscription, min(rest_s, REREAD_S))
    finally:
        subscription.close()


@router.delete(
    "/jobs/{id:name}",
    summary="Delete a final job with its logs and artifacts",
    status_code=204,
    responses=refusals(404, 409),
)
async def delete_job(call: TenantSubmitter, id: str) -> Response:
    """409 while the job is not final: cancel it first."""
    job = await find_job(call, id)
    services = call.context.services
    if (
        job.state.is_final
    ):  # and stays so (I2). Files first: a crash in between leaves a job that can be deleted again
        await services.logs.delete_job(job.uid)
        await services.artifacts.delete_job(job.uid)
    await services.ledger.delete_job(job.uid)
    await audit(call, "delete", f"job {job.tenant}/{job.id}")
    return Response(status_code=204)


@router.post(
    "/jobs/{id:name}:cancel",
    summary="Cancel a job",
    response_model=JobAnswer,
    responses=refusals(404, 409),
)
async def cancel_job(call: TenantSubmitter, id: str) -> Response:
    """A queued job is canceled at once; a running one is `canceling` until it has ended. A final one stays as it is."""
    job = await find_job(call, id)
    canceled = await call.context.services.ledger.request_cancel(job.uid)
    await audit(call, "cancel", f"job {job.tenant}/{job.id}")
    return await answer_job(call, canceled)


@router.get(
    "/jobs/{id:name}/why",
    summary="Why a job waits",
    response_model=WhyAnswer,
    responses=refusals(404, 409),
)
async def why_job(call: TenantReader, id: str) -> Response:
    """What holds for all pools first, then pool by pool. A job that does not wait has no reasons."""
    job = await find_job(call, id)
    answer = WhyAnswer(
        id=job.id,
        tenant=job.tenant,
        queue=job.queue,
        state=job.state.value,
        class_key=job.spec.requirements.class_key(),
    )
    facts = await call.context.services.ledger.wait_facts(job.uid)
    if facts is not None:
        reasons = [_reason_answer(reason, facts.now) for reason in explain(facts)]
        answer = answer.model_copy(update={"ahead": place_in_order(facts), "reasons": reasons})
    return json_response(answer)


def _reason_answer(reason: WaitReason, now: float) -> WaitReasonAnswer:
    """What nobody wrote down, such as when a queue was paused, stays null."""
    return WaitReasonAnswer(
        code=reason.code.value,
        message=reason.message,
        pool=reason.pool,
        since=time_of(reason.since),
        age_s=None if reason.since is None else max(0.0, now - reason.since),
        stated_at=time_of(reason.stated_at),
        eta_s=reason.eta_s,
        ahead=reason.ahead,
    )
