"""The log of a job: the raw bytes of one stream, or everything as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from runyard.api.access import Call, TenantReader
from runyard.api.access import stream as event_stream
from runyard.api.description import bytes_answer, refusals
from runyard.api.errors import RangeNotSatisfiable
from runyard.api.job_lookup import attempt_key, find_job, refuse_deleted_log
from runyard.api.log_following import LogCursor, LogFollower
from runyard.api.open_bounds import OpenKind
from runyard.api.ranges import parse_range
from runyard.api.step_names import StepNames
from runyard.logs.port import CHUNK_BYTES_MAX, LogStore, StreamInfo
from runyard.model.attempt import AttemptKey, AttemptState
from runyard.model.errors import Invalid
from runyard.model.job import Job

OFFSET_MAX = 1 << 53

router = APIRouter(prefix="/api/v1", tags=["logs"])


@router.get(
    "/jobs/{id:name}/log",
    summary="The log: raw bytes of one stream, or events of all",
    response_class=Response,
    responses={
        200: bytes_answer("The bytes of the stream, or events", "text/event-stream"),
        206: bytes_answer("The range of bytes"),
        **refusals(404, 409, 410, 416, 429),
    },
)
async def get_log(
    call: TenantReader,
    id: str,
    attempt: Annotated[int | None, Query(ge=1, le=1_000_000)] = None,
    step: Annotated[str | None, Query(max_length=200)] = None,
    stream: Literal["stdout", "stderr"] = "stdout",
    offset: Annotated[int, Query(ge=0, le=OFFSET_MAX)] = 0,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header()] = None,
    range: Annotated[str | None, Header()] = None,
) -> Response:
    """With `Accept: text/event-stream`: `{attempt, step, stream, offset, data}` of all streams, `gap`, `cut`, a last
    `end`; over all further attempts unless `attempt` is given. Otherwise the bytes of `stream`: those of `step`, or of
    all steps one after the other. Where the middle was cut out, `Runyard-Log-Cut: from-to` names the offsets."""
    job = await find_job(call, id)
    if "text/event-stream" in accept:
        return await _follow(call, job, attempt=attempt, step=step, last_event_id=last_event_id)
    key = await attempt_key(call, job, attempt)
    await refuse_deleted_log(call, key)
    logs = call.context.services.logs
    names = StepNames(job.spec)
    keys = names.step_keys if step is None else [names.key_of(step)]
    infos = {info.step: info for info in await logs.streams(key) if info.stream == stream}
    if len(keys) == 1:
        info = infos.get(keys[0]) or StreamInfo(step=keys[0], stream=stream, size=0)
        return await _one_stream(call, key, info, offset=offset, range_header=range)
    if offset:
        raise Invalid(
            "offset: the job has several steps, each with offsets of its own",
            field="offset",
            cure="say which step with ?step=",
        )
    return _answer(_all_streams(logs, key, [infos[key_] for key_ in keys if key_ in infos]))


async def _follow(
    call: Call, job: Job, *, attempt: int | None, step: str | None, last_event_id: str | None
) -> Response:
    cursor = LogCursor.parse(last_event_id) if last_event_id else None
    if step is not None:
        StepNames(job.spec).key_of(step)
    number = attempt or (cursor.attempt if cursor else 0) or job.attempts
    if attempt is not None:
        await attempt_key(call, job, attempt)
    if number:
        await refuse_deleted_log(call, AttemptKey(job.uid, number))
    follower = LogFollower(call.context, job, only=attempt, cursor=cursor, step=step)
    return event_stream(call, OpenKind.LOG, follower.frames())


async def _one_stream(
    call: Call, key: AttemptKey, info: StreamInfo, *, offset: int, range_header: str | None
) -> Response:
    logs = call.context.services.logs
    wanted = parse_range(range_header, info.size)
    if wanted is None:
        response = _answer(_bytes_of(logs, key, info, offset, info.size))
        if await _has_ended(call, key):  # else a cut may still be made in what was promised
            response.headers["Content-Length"] = str(info.kept_bytes(offset, info.size))
        response.headers.update(_size_headers(info))
        return response
    begin, end = _without_holes(info, *wanted)
    response = _answer(_bytes_of(logs, key, info, begin, end), status=206)
    response.headers.update(_size_headers(info))
    response.headers["Content-Length"] = str(end - begin)
    response.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{info.size}"
    return response


def _without_holes(info: StreamInfo, begin: int, end: int) -> tuple[int, int]:
    """The first part of the range that is there; the Content-Range of the answer says which it is."""
    while (hole := info.hole_at(begin)) is not None:
        begin = hole.end
    if begin >= min(end, info.size):
        raise RangeNotSatisfiable("the whole range was cut out of the log", size=info.size)
    ahead = (hole.begin for hole in info.holes if hole.begin > begin)
    return begin, min(end, next(ahead, end))


async def _has_ended(call: Call, key: AttemptKey) -> bool:
    attempt = await call.context.services.ledger.get_attempt(key)
    return attempt is not None and attempt.state is AttemptState.ENDED


def _size_headers(info: StreamInfo) -> dict[str, str]:
    headers = {"Accept-Ranges": "bytes", "Runyard-Log-Size": str(info.size)}
    if (cut := info.cut) is not None:
        headers["Runyard-Log-Cut"] = f"{cut.begin}-{cut.end}"
    return headers


def _answer(content: AsyncIterator[bytes], *, status: int = 200) -> StreamingResponse:
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return StreamingResponse(content, status, headers, media_type="application/octet-stream")


async def _bytes_of(
    logs: LogStore, key: AttemptKey, info: StreamInfo, begin: int, end: int
) -> AsyncIterator[bytes]:
    """[begin, end) of one stream, its holes left out; less where the file shrank meanwhile."""
    at = begin
    while at < end:
        if (hole := info.hole_at(at)) is not None:
            at = hole.end
            continue
        data = await logs.read(key, info.step, info.stream, at, min(CHUNK_BYTES_MAX, end - at))
        if not data:
            moved = [
                now for now in await logs.streams(key) if (now.step, now.stream) == (info.step, info.stream)
            ]
            if not moved or moved[0].hole_at(at) is None:
                return
            info = moved[0]  # a cut was made here while it was read
            continue
        at += len(data)
        yield data


async def _all_streams(logs: LogStore, key: AttemptKey, infos: list[StreamInfo]) -> AsyncIterator[bytes]:
    for info in infos:
        async for data in _bytes_of(logs, key, info, 0, info.size):
            yield data
