"""What a job left behind: the list, and each file for download."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from runyard.api.access import TenantReader
from runyard.api.answers import json_response
from runyard.api.description import bytes_answer, refusals
from runyard.api.job_lookup import attempt_key, find_job
from runyard.api.ranges import parse_range
from runyard.artifacts.port import OpenArtifact
from runyard.model.errors import NotFound
from runyard.wire.answers import ArtifactAnswer, ArtifactList

READ_BYTES_MAX = 256 * 1024

router = APIRouter(prefix="/api/v1", tags=["artifacts"])
AttemptQuery = Annotated[
    int | None, Query(ge=1, le=1_000_000, description="The attempt's number; the newest without it")
]


@router.get(
    "/jobs/{id:name}/artifacts",
    summary="The artifacts of a job",
    response_model=ArtifactList,
    responses=refusals(404, 409),
)
async def list_artifacts(call: TenantReader, id: str, attempt: AttemptQuery = None) -> Response:
    """Those of the newest attempt, or of the one that is asked for; empty until they are collected."""
    job = await find_job(call, id)
    if attempt is None and job.attempts == 0:
        return json_response(ArtifactList(artifacts=[]))
    key = await attempt_key(call, job, attempt)
    found = await call.context.services.artifacts.list(key)
    answers = [ArtifactAnswer(path=file.path, size=file.size, attempt=key.number) for file in found]
    return json_response(ArtifactList(artifacts=answers))


@router.get(
    "/jobs/{id:name}/artifacts/{path:file}",
    summary="Download an artifact",
    response_class=Response,
    responses={
        200: bytes_answer("The file"),
        206: bytes_answer("The range of bytes"),
        **refusals(404, 409, 416),
    },
)
async def get_artifact(
    call: TenantReader,
    id: str,
    path: str,
    attempt: AttemptQuery = None,
    range: Annotated[str | None, Header()] = None,
) -> Response:
    """Always as a download of plain bytes: a browser must not run what a job wrote."""
    job = await find_job(call, id)
    key = await attempt_key(call, job, attempt)
    file = await call.context.services.artifacts.open(key, path)
    if file is None:
        raise NotFound(
            f"attempt {key.number} of job '{job.id}' has no artifact {path[:200]!r}",
            field="path",
            cure=f"GET /api/v1/jobs/{job.id}/artifacts lists them",
        )
    try:
        wanted = parse_range(range, file.size)
    except BaseException:
        file.close()
        raise
    begin, end = wanted or (0, file.size)
    headers = _safe_headers(path) | {"Content-Length": str(end - begin)}
    if wanted is not None:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
    status = 200 if wanted is None else 206
    return FileResponse(file, begin, end, status=status, headers=headers)


class FileResponse(StreamingResponse):
    """Sends [begin, end) of an open artifact and closes it, whatever happens."""

    def __init__(
        self, file: OpenArtifact, begin: int, end: int, *, status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(_read(file, begin, end), status, headers, media_type="application/octet-stream")


async def _read(file: OpenArtifact, begin: int, end: int) -> AsyncIterator[bytes]:
    try:
        while begin < end and (data := await file.read(begin, min(READ_BYTES_MAX, end - begin))):
            begin += len(data)
            yield data
    finally:
        file.close()


def _safe_headers(path: str) -> dict[str, str]:
    name = quote(path.rsplit("/", 1)[-1], safe="")
    return {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
    }
