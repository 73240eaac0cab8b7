"""The requests about jobs, their logs and artifacts: pure values, shared by both clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from runyard.sdk.call import Call, Parse, query_of, route
from runyard.sdk.job_ids import choose_job_id

if TYPE_CHECKING:
    from pydantic import BaseModel

    from runyard.wire.answers import ArtifactList, BatchAnswer, JobAnswer, JobPage, WhyAnswer
    from runyard.wire.job_document import JobDocument

    Document: TypeAlias = Mapping[str, Any] | JobDocument

T = TypeVar("T")
WAIT_S_MAX = 30.0


def submit(document: Document, *, job_id: str | None, tenant: str | None) -> Call[JobAnswer]:
    """PUT under an id that is chosen here at the latest: sent again after a lost reply, it is the same job."""
    body = plain_document(document)
    body["id"] = job_id = str(job_id or body.get("id") or choose_job_id())
    tenant = tenant or body.get("tenant")
    return Call(
        what=f"submit job '{job_id}'",
        method="PUT",
        path=route("jobs", job_id),
        query=query_of(tenant=tenant),
        body=encode(body),
        parse=answer("JobAnswer"),
    )


def submit_batch(documents: list[dict[str, Any]], *, tenant: str | None) -> Call[BatchAnswer]:
    """Each document has an id already, so that the whole may be repeated."""
    return Call(
        what=f"submit {len(documents)} jobs",
        method="POST",
        path=route("jobs:batch"),
        query=query_of(tenant=tenant),
        body=encode({"jobs": documents}),
        parse=answer("BatchAnswer"),
        timeout_s=120.0,
    )


def get(job_id: str, *, tenant: str | None, wait_s: float | None = None) -> Call[JobAnswer]:
    wait = None if wait_s is None else f"{max(wait_s, 0.001):.3f}s"
    return Call(
        what=f"read job '{job_id}'",
        method="GET",
        path=route("jobs", job_id),
        query=query_of(tenant=tenant, wait=wait),
        parse=answer("JobAnswer"),
        timeout_s=30.0 + (wait_s or 0.0),
    )


def page(filters: Mapping[str, object], *, limit: int, cursor: str | None) -> Call[JobPage]:
    return Call(
        what="list jobs",
        method="GET",
        path=route("jobs"),
        query=query_of(**filters, limit=limit, cursor=cursor),
        parse=answer("JobPage"),
    )


def moment(given: datetime | str | None, name: str) -> str | None:
    """As the API reads it. Raises ValueError for a datetime without a zone: which hour it means is anybody's guess."""
    if given is None or isinstance(given, str):
        return given
    if given.utcoffset() is None:
        raise ValueError(f"{name}: {given!r} has no time zone; give it one, like datetime.now(UTC)")
    return given.astimezone(UTC).isoformat()


def cancel(job_id: str, *, tenant: str | None) -> Call[JobAnswer]:
    return Call(
        what=f"cancel job '{job_id}'",
        method="POST",
        path=route("jobs", job_id) + ":cancel",
        query=query_of(tenant=tenant),
        parse=answer("JobAnswer"),
    )


def retry(job_id: str, *, new_id: str | None, tenant: str | None) -> Call[JobAnswer]:
    """Under a new id that is chosen here at the latest, so that it may be repeated."""
    return Call(
        what=f"retry job '{job_id}'",
        method="POST",
        path=route("jobs", job_id) + ":retry",
        query=query_of(tenant=tenant),
        body=encode({"id": new_id or choose_job_id()}),
        parse=answer("JobAnswer"),
    )


def delete(job_id: str, *, tenant: str | None) -> Call[None]:
    return Call(
        what=f"delete job '{job_id}'",
        method="DELETE",
        path=route("jobs", job_id),
        query=query_of(tenant=tenant),
        parse=nothing,
    )


def why(job_id: str, *, tenant: str | None) -> Call[WhyAnswer]:
    return Call(
        what=f"ask why job '{job_id}' waits",
        method="GET",
        path=route("jobs", job_id, "why"),
        query=query_of(tenant=tenant),
        parse=answer("WhyAnswer"),
    )


def artifacts(job_id: str, *, tenant: str | None, attempt: int | None) -> Call[ArtifactList]:
    return Call(
        what=f"list the artifacts of job '{job_id}'",
        method="GET",
        path=route("jobs", job_id, "artifacts"),
        query=query_of(tenant=tenant, attempt=attempt),
        parse=answer("ArtifactList"),
    )


def artifact(job_id: str, path: str, *, tenant: str | None, attempt: int | None) -> Call[bytes]:
    return Call(
        what=f"download artifact '{path}' of job '{job_id}'",
        method="GET",
        path=route("jobs", job_id, "artifacts") + route(*path.split("/")).removeprefix(route()),
        query=query_of(tenant=tenant, attempt=attempt),
        parse=bytes,
    )


def read_log(
    job_id: str, *, tenant: str | None, attempt: int | None, step: str | None, stream: str, offset: int,
    bytes_max: int | None,
) -> Call[bytes]:  # fmt: skip
    headers = {} if bytes_max is None else {"Range": f"bytes={offset}-{offset + bytes_max - 1}"}
    from_offset = offset if bytes_max is None else None
    return Call(
        what=f"read the log of job '{job_id}'",
        method="GET",
        path=route("jobs", job_id, "log"),
        query=query_of(tenant=tenant, attempt=attempt, step=step, stream=stream, offset=from_offset),
        headers=headers,
        parse=bytes,
    )


def follow_log(job_id: str, *, tenant: str | None, attempt: int | None, step: str | None) -> Call[None]:
    return Call(
        what=f"follow the log of job '{job_id}'",
        method="GET",
        path=route("jobs", job_id, "log"),
        query=query_of(tenant=tenant, attempt=attempt, step=step),
        headers={"Accept": "text/event-stream"},
        parse=nothing,
    )


def follow_events(*, after: str | None, tenant: str | None) -> Call[None]:
    return Call(
        what="follow the events",
        method="GET",
        path=route("events"),
        query=query_of(after=after, tenant=tenant),
        headers={"Accept": "text/event-stream"},
        parse=nothing,
    )


def plain_document(document: Document) -> dict[str, Any]:
    """A copy that JSON can carry, with only what the caller wrote."""
    if isinstance(document, Mapping):
        return dict(document)
    written: dict[str, Any] = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return written


def encode(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def answer(model: str) -> Parse[Any]:
    """Reads the answer as this model of wire/; pydantic is imported only when the answer is there."""

    def parse(body: bytes) -> BaseModel:
        from runyard.wire import answers

        kind: type[BaseModel] = getattr(answers, model)
        return kind.model_validate_json(body)

    return parse


def nothing(body: bytes) -> None:
    return None


def plain(body: bytes) -> Any:
    return json.loads(body)
