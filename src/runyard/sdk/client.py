"""The client for programs without an event loop. Each method says what; how is in the calls, plans and transport."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from runyard.sdk import job_calls, plans
from runyard.sdk.admin import Machines, Pools, Queues, Secrets, Tenants, Tokens
from runyard.sdk.call import Call, T
from runyard.sdk.discovery import find_service
from runyard.sdk.following import FOLLOWING, JobChange, LogItem, event_follower, log_follower
from runyard.sdk.retrying import PATIENT, RetryPolicy, perform
from runyard.sdk.transport import Transport, Watch

if TYPE_CHECKING:
    from datetime import datetime

    from runyard.sdk.job_calls import Document
    from runyard.wire.answers import ArtifactAnswer, BatchItem, JobAnswer, WhyAnswer

PAGE_LIMIT = 100


class Client:
    """One service, one token. Without arguments it finds both as the command line does (`find_service`).

    `tenant` is sent with each request that does not name its own; None leaves the choice to the token. Calls that
    are safe to repeat are repeated within `policy` when the connection breaks or the service asks for it; a failure
    is a RunyardApiError. Methods may be called from several threads.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        tenant: str | None = None,
        policy: RetryPolicy = PATIENT,
        transport: Transport | None = None,
    ) -> None:
        self._transport = transport or Transport(find_service(url=url, token=token))
        self._tenant, self._policy = tenant, policy
        self.queues = Queues(self._call)
        self.tenants = Tenants(self._call)
        self.pools = Pools(self._call)
        self.machines = Machines(self._call)
        self.tokens = Tokens(self._call)
        self.secrets = Secrets(self._call)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The service that was found, without a slash at its end."""
        return self._transport.url.rstrip("/")

    def close(self) -> None:
        self._transport.close()

    def _call(self, call: Call[T]) -> T:
        return self._transport.run(perform(call, self._policy))

    def submit(self, document: Document, id: str | None = None, *, tenant: str | None = None) -> JobAnswer:
        """The job, new or the same again. Its id is `id`, else the document's, else a random one. Raises Conflict
        if that id is another job's, Refused with the field for a document that can never run."""
        return self._call(job_calls.submit(document, job_id=id, tenant=tenant or self._tenant))

    def submit_batch(
        self, documents: Iterable[Document], *, tenant: str | None = None
    ) -> Sequence[BatchItem]:
        """One item per document, in order: its `id`, or its `error`; a wrong one holds back no other."""
        plan = plans.submit_jobs(documents, tenant=tenant or self._tenant, policy=self._policy)
        return self._transport.run(plan)

    def get(self, id: str, *, wait_s: float | None = None, tenant: str | None = None) -> JobAnswer:
        """The job; with `wait_s` (at most 30) as soon as it is final, or as it stands after that time."""
        return self._call(job_calls.get(id, tenant=tenant or self._tenant, wait_s=wait_s))

    def list(
        self,
        *,
        queue: str | None = None,
        state: str | Sequence[str] | None = None,
        tenant: str | None = None,
        label: str | Sequence[str] | None = None,
        pool: str | None = None,
        text: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> Iterator[JobAnswer]:
        """Jobs, newest first, page by page when asked for; at most `limit` (None: all). A label is `k=v`; submitted at
        `since` or later and before `until`, each a datetime that knows its zone, or RFC 3339."""
        filters = {"queue": queue, "state": state, "tenant": tenant or self._tenant, "label": label,
                   "pool": pool, "text": text, "since": job_calls.moment(since, "since"),
                   "until": job_calls.moment(until, "until")}  # fmt: skip
        cursor, rest = None, limit
        while rest is None or rest > 0:
            size = PAGE_LIMIT if rest is None else min(PAGE_LIMIT, rest)
            page = self._call(job_calls.page(filters, limit=size, cursor=cursor))
            yield from page.jobs
            rest = None if rest is None else rest - len(page.jobs)
            cursor = page.next
            if cursor is None:
                return

    def cancel(self, id: str, *, tenant: str | None = None) -> JobAnswer:
        return self._call(job_calls.cancel(id, tenant=tenant or self._tenant))

    def retry(self, id: str, new_id: str | None = None, *, tenant: str | None = None) -> JobAnswer:
        """A new job of the same document under `new_id` (None: a random one), its `retry_of` naming the old one."""
        return self._call(job_calls.retry(id, new_id=new_id, tenant=tenant or self._tenant))

    def delete(self, id: str, *, tenant: str | None = None) -> None:
        """Only a final job can be deleted; else Conflict."""
        self._call(job_calls.delete(id, tenant=tenant or self._tenant))

    def why(self, id: str, *, tenant: str | None = None) -> WhyAnswer:
        return self._call(job_calls.why(id, tenant=tenant or self._tenant))

    def wait(self, id: str, *, timeout_s: float | None = None, tenant: str | None = None) -> JobAnswer:
        """The job once it is final, or as it stands when `timeout_s` are over (see `is_final`)."""
        plan = plans.wait_for_job(id, tenant=tenant or self._tenant, timeout_s=timeout_s, policy=self._policy)
        return self._transport.run(plan)

    def artifacts(
        self, id: str, *, attempt: int | None = None, tenant: str | None = None
    ) -> Sequence[ArtifactAnswer]:
        """Of the last attempt, or of the given one."""
        call = job_calls.artifacts(id, tenant=tenant or self._tenant, attempt=attempt)
        return self._call(call).artifacts

    def download_artifacts(
        self, id: str, directory: Path | str, *, attempt: int | None = None, tenant: str | None = None
    ) -> Sequence[Path]:
        """Writes them beneath `directory`, each whole or not at all; returns where. Raises UnsafeArtifact."""
        plan = plans.download_artifacts(
            id, Path(directory), tenant=tenant or self._tenant, attempt=attempt, policy=self._policy
        )
        return self._transport.run(plan)

    def read_log(
        self,
        id: str,
        *,
        step: str | None = None,
        stream: str = "stdout",
        attempt: int | None = None,
        offset: int = 0,
        bytes_max: int | None = None,
        tenant: str | None = None,
    ) -> bytes:
        """The bytes there are now of one stream, from `offset`; all of them unless `bytes_max` is given."""
        call = job_calls.read_log(
            id, tenant=tenant or self._tenant, attempt=attempt, step=step, stream=stream, offset=offset,
            bytes_max=bytes_max,
        )  # fmt: skip
        return self._call(call)

    def stream_log(
        self,
        id: str,
        *,
        step: str | None = None,
        stream: str = "stdout",
        attempt: int | None = None,
        offset: int = 0,
        tenant: str | None = None,
    ) -> Iterator[bytes]:
        """As read_log, piece by piece: a log of any size costs no memory. A broken connection is Unreachable."""
        call = job_calls.read_log(
            id, tenant=tenant or self._tenant, attempt=attempt, step=step, stream=stream, offset=offset,
            bytes_max=None,
        )  # fmt: skip
        with closing(self._transport.stream(call)) as pieces:
            yield from pieces

    def follow_log(
        self,
        id: str,
        *,
        step: str | None = None,
        attempt: int | None = None,
        tenant: str | None = None,
        watch: Watch | None = None,
        policy: RetryPolicy = FOLLOWING,
    ) -> Iterator[LogItem]:
        """All streams from their start, as they grow, until LogEnd; over all attempts unless one is named. A broken
        connection is taken up again behind the last byte, within `policy`; `watch` is told of each break."""
        call = job_calls.follow_log(id, tenant=tenant or self._tenant, attempt=attempt, step=step)
        with closing(self._transport.follow(log_follower(call, policy), watch)) as items:
            yield from items

    def events(
        self, after: str | None = None, *, tenant: str | None = None, watch: Watch | None = None
    ) -> Iterator[JobChange]:
        """Every change of state, in order, at least once, for ever. Raises Gone when `after` is no longer kept."""
        call = job_calls.follow_events(after=after, tenant=tenant or self._tenant)
        with closing(self._transport.follow(event_follower(call), watch)) as items:
            yield from items

    def raw(self, call: Call[Any]) -> Any:
        """The answer to a call of your own making, with this client's address, token and patience."""
        return self._call(call)
