"""The log for the job page: where its streams stand, their bytes, a search, and what is printed from now on.

The page never asks for all of a log: it reads windows around what is looked at, so a log of a gigabyte costs it no
more than a short one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runyard.api.access import Call, stream
from runyard.api.job_lookup import attempt_key, find_job, refuse_deleted_log
from runyard.api.log_following import LogCursor, LogFollower
from runyard.api.open_bounds import OpenKind
from runyard.api.routes.logs import get_log
from runyard.api.step_names import StepNames
from runyard.logs.port import LogStore, StreamInfo
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Invalid
from runyard.model.job import Job
from runyard.web.session import call_of

FOUND_MAX = 200
LINE_BYTES_MAX = 400
READ_BYTES = 1 << 20
SEARCH_TIMEOUT_S = 20.0


async def log_streams(request: Request) -> Response:
    """{attempt, cursor, streams: [{step, stream, size, holes}]}: where everything stands, and how to go on from it."""
    call, job = await _job_of(request)
    number = _number(request, "attempt")
    if number is None and not job.attempts:
        return JSONResponse({"attempt": 0, "cursor": "", "streams": []})
    key = await attempt_key(call, job, number)
    await refuse_deleted_log(call, key)
    names = StepNames(job.spec)
    infos = await call.context.services.logs.streams(key)
    cursor = LogCursor(key.number, {(info.step, info.stream): info.size for info in infos})
    streams = [
        {
            "step": names.name_of(info.step),
            "stream": info.stream,
            "size": info.size,
            "holes": [[hole.begin, hole.end, hole.is_cut] for hole in info.holes],
        }
        for info in infos
    ]
    return JSONResponse({"attempt": key.number, "cursor": str(cursor), "streams": streams})


async def log_bytes(request: Request) -> Response:
    """The bytes of one stream, by Range; `download` gives it a name."""
    call = await call_of(request)
    query = request.query_params
    step = query.get("step") or None
    stream = query.get("stream", "stdout")
    if stream not in ("stdout", "stderr"):
        raise Invalid("stream: there are stdout and stderr", field="stream", cure="say one of them")
    response = await get_log(
        call,
        request.path_params["id"],
        attempt=_number(request, "attempt"),
        step=step,
        stream="stderr" if stream == "stderr" else "stdout",
        offset=0,
        accept="",
        last_event_id=None,
        range=request.headers.get("range"),
    )
    if "download" in query:
        name = f"{request.path_params['id']}.{stream}.log"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


async def log_events(request: Request) -> Response:
    """What is printed behind `cursor`, as the API's log events."""
    call, job = await _job_of(request)
    text = request.headers.get("last-event-id") or request.query_params.get("cursor") or ""
    cursor = LogCursor.parse(text) if text else None
    only = _number(request, "attempt")
    follower = LogFollower(call.context, job, only=only, cursor=cursor, step=None, has_services=True)
    return stream(call, OpenKind.LOG, follower.frames())


async def log_search(request: Request) -> Response:
    """{found: [{step, stream, offset, line}], is_whole}: the lines with `q` in them, in order, FOUND_MAX at most."""
    call, job = await _job_of(request)
    wanted = request.query_params.get("q", "")[:200].encode()
    if not wanted:
        return JSONResponse({"found": [], "is_whole": True})
    key = await attempt_key(call, job, _number(request, "attempt"))
    await refuse_deleted_log(call, key)
    with call.take(OpenKind.SEARCH):
        found, is_whole = await _search(call.context.services.logs, key, StepNames(job.spec), wanted)
    return JSONResponse({"found": found, "is_whole": is_whole})


async def _search(
    logs: LogStore, key: AttemptKey, names: StepNames, wanted: bytes
) -> tuple[list[dict[str, Any]], bool]:
    """What was found, and whether all was looked through: FOUND_MAX lines or SEARCH_TIMEOUT_S end it."""
    found: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(SEARCH_TIMEOUT_S):
            for info in await logs.streams(key):
                async for offset, line in _lines_with(logs, key, info, wanted):
                    text = line.decode("utf-8", "replace")
                    place = {
                        "step": names.name_of(info.step),
                        "stream": info.stream,
                        "offset": offset,
                        "line": text,
                    }
                    found.append(place)
                    if len(found) == FOUND_MAX:
                        return found, False
    except TimeoutError:
        return found, False
    return found, True


async def _lines_with(
    logs: LogStore, key: AttemptKey, info: StreamInfo, wanted: bytes
) -> AsyncIterator[tuple[int, bytes]]:
    """(offset, line) of each line that holds `wanted`; long lines are shown around the first place."""
    rest, rest_at = b"", 0
    async for at, data in _pieces(logs, key, info):
        if at != rest_at + len(rest):  # behind a hole: what was open ends there
            for item in _matches(rest, rest_at, wanted):
                yield item
            rest, rest_at = b"", at
        window = rest + data
        whole = window.rfind(b"\n") + 1
        for item in _matches(window[:whole], rest_at, wanted):
            yield item
        rest, rest_at = window[whole:][-READ_BYTES:], rest_at + max(whole, len(window) - READ_BYTES)
    for item in _matches(rest, rest_at, wanted):
        yield item


async def _pieces(logs: LogStore, key: AttemptKey, info: StreamInfo) -> AsyncIterator[tuple[int, bytes]]:
    at = 0
    while at < info.size:
        if (hole := info.hole_at(at)) is not None:
            at = hole.end
            continue
        data = await logs.read(key, info.step, info.stream, at, min(READ_BYTES, info.size - at))
        if not data:
            return
        yield at, data
        at += len(data)


def _matches(window: bytes, window_at: int, wanted: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    place = window.find(wanted)
    while place >= 0 and len(found) <= FOUND_MAX:
        begin = window.rfind(b"\n", 0, place) + 1
        end = window.find(b"\n", place)
        end = len(window) if end < 0 else end
        shown = begin if end - begin <= LINE_BYTES_MAX else max(begin, place - LINE_BYTES_MAX // 4)
        found.append((window_at + begin, window[shown : min(end, shown + LINE_BYTES_MAX)]))
        place = window.find(wanted, end)
    return found


async def _job_of(request: Request) -> tuple[Call, Job]:
    call = await call_of(request)
    return call, await find_job(call, request.path_params["id"])


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 7:
        raise Invalid(f"{name}: {text[:40]!r} is no number", field=name, cure="write a number")
    return int(text)
