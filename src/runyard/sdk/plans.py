"""The conversations of several requests, without a thread or a loop in them: wait, batch, download, pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runyard.sdk import job_calls
from runyard.sdk.artifact_paths import artifact_target
from runyard.sdk.call import Fetch, Pause, Plan, ReadClock
from runyard.sdk.job_ids import choose_job_id
from runyard.sdk.retrying import RetryPolicy, perform, perform_fetch

if TYPE_CHECKING:
    from runyard.sdk.job_calls import Document
    from runyard.wire.answers import BatchItem, JobAnswer

BATCH_JOBS_MAX = 500
BATCH_BYTES_MAX = 2 << 20


def wait_for_job(
    job_id: str, *, tenant: str | None, timeout_s: float | None, policy: RetryPolicy
) -> Plan[JobAnswer]:
    """The job once it is final, or as it stands when `timeout_s` are over."""
    began: float = yield ReadClock()
    while True:
        asked: float = yield ReadClock()
        rest_s = float("inf") if timeout_s is None else timeout_s - (asked - began)
        wait_s = max(0.0, min(job_calls.WAIT_S_MAX, rest_s))
        job = yield from perform(job_calls.get(job_id, tenant=tenant, wait_s=wait_s), policy)
        now: float = yield ReadClock()
        if job.is_final or (timeout_s is not None and now - began >= timeout_s):
            return job
        if now - asked < min(wait_s, 0.2):
            yield Pause(
                0.2
            )  # a service that is stopping answers at once; it must not be asked in a tight loop


def submit_jobs(
    documents: Iterable[Document], *, tenant: str | None, policy: RetryPolicy
) -> Plan[list[BatchItem]]:
    """One item per document, in order. Documents without an id get one here."""
    items: list[BatchItem] = []
    for batch in split_batches(with_ids(documents)):
        answer = yield from perform(job_calls.submit_batch(batch, tenant=tenant), policy)
        items += answer.jobs
    return items


def with_ids(documents: Iterable[Document]) -> list[dict[str, Any]]:
    written = [job_calls.plain_document(document) for document in documents]
    return [{**document, "id": document.get("id") or choose_job_id()} for document in written]


def split_batches(
    documents: Sequence[dict[str, Any]], *, jobs_max: int = BATCH_JOBS_MAX, bytes_max: int = BATCH_BYTES_MAX
) -> Iterator[list[dict[str, Any]]]:
    """In order, each within both bounds; a single document above `bytes_max` goes alone."""
    batch: list[dict[str, Any]] = []
    size = 0
    for document in documents:
        length = len(job_calls.encode(document))
        if batch and (len(batch) >= jobs_max or size + length > bytes_max):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += length
    if batch:
        yield batch


def download_artifacts(
    job_id: str, directory: Path, *, tenant: str | None, attempt: int | None, policy: RetryPolicy
) -> Plan[list[Path]]:
    """Writes every artifact beneath `directory`. Raises UnsafeArtifact before it writes anything outside."""
    listing = yield from perform(job_calls.artifacts(job_id, tenant=tenant, attempt=attempt), policy)
    targets = [(artifact, artifact_target(directory, artifact.path)) for artifact in listing.artifacts]
    for artifact, target in targets:
        call = job_calls.artifact(job_id, artifact.path, tenant=tenant, attempt=artifact.attempt)
        yield from perform_fetch(Fetch(call, target), policy)
    return [target for _, target in targets]
