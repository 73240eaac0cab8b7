"""The client for programs on an event loop: the same methods as Client, awaited. A test holds the two together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from runyard.sdk import job_calls, plans
from runyard.sdk.async_admin import (
    AsyncMachines,
    AsyncPools,
    AsyncQueues,
    AsyncSecrets,
    AsyncTenants,
    AsyncTokens,
)
from runyard.sdk.call import Call, T
from runyard.sdk.discovery import find_service
from runyard.sdk.following import FOLLOWING, JobChange, LogItem, event_follower, log_follower
from runyard.sdk.retrying import PATIENT, RetryPolicy, perform
from runyard.sdk.transport import AsyncTransport, Watch

if TYPE_CHECKING:
    from datetime import datetime

    from runyard.sdk.job_calls import Document
    from runyard.wire.answers import ArtifactAnswer, BatchItem, JobAnswer, WhyAnswer

PAGE_LIMIT = 100


class AsyncClient:
    """As Client, on asyncio or trio."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        tenant: str | None = None,
        policy: RetryPolicy = PATIENT,
        transport: AsyncTransport | None = None,
    ) -> None:
        self._transport = transport or AsyncTransport(find_service(url=url, token=token))
        self._tenant, self._policy = tenant, policy
        self.queues = AsyncQueues(self._call)
        self.tenants = AsyncTenants(self._call)
        self.pools = AsyncPools(self._call)
        self.machines = AsyncMachines(self._call)
        self.tokens = AsyncTokens(self._call)
        self.secrets = AsyncSecrets(self._call)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """The service that was found, without a slash at its end."""
        return self._transport.url.rstrip("/")

    async def close(self) -> None:
        await self._transport.close()

    async def _call(self, call: Call[T]) -> T:
        return await self._transport.run(perform(call, self._policy))

    async def submit(
        self, document: Document, id: str | None = None, *, tenant: str | None = None
    ) -> JobAnswer:
        """The job, new or the same again. Its id is `id`, else the document's, else a random one. Raises Conflict
        if that id is another job's, Refused with the field for a document that can never run."""
        return await self._call(job_calls.submit(document, job_id=id, tenant=tenant or self._tenant))

    async def submit_batch(
        self, documents: Iterable[Document], *, tenant: str | None = None
    ) -> Sequence[BatchItem]:
        """One item per document, in order: its `id`, or its `error`; a wrong one holds back no other."""
        plan = plans.submit_jobs(documents, tenant=tenant or self._tenant, policy=self._policy)
        return await self._transport.run(plan)

    async def get(self, id: str, *, wait_s: float | None = None, tenant: str | None = None) -> JobAnswer:
        """The job; with `wait_s` (at most 30) as soon as it is final, or as it stands after that time."""
        return await self._call(job_calls.get(id, tenant=tenant or self._tenant, wait_s=wait_s))

    async def list(
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
    ) -> AsyncIterator[JobAnswer]:
        """Jobs, newest first, page by page when asked for; at most `limit` (None: all). A label is `k=v`; submitted at
        `since` or later and before `until`, each a datetime that knows its zone, or RFC 3339."""
        filters = {"queue": queue, "state": state, "tenant": tenant or self._tenant, "label": label,
                   "pool": pool, "text": text, "since": job_calls.moment(since, "since"),
                   "until": job_calls.moment(until, "until")}  # fmt: skip
        cursor, rest = None, limit
        while rest is None or rest > 0:
            size = PAGE_LIMIT if rest is None else min(PAGE_LIMIT, rest)
            page = await self._call(job_calls.page(filters, limit=size, cursor=cursor))
            for job in page.jobs:
                yield job
            rest = None if rest is None else rest - len(page.jobs)
            cursor = page.next
            if cursor is None:
                return

    async def cancel(self, id: str, *, tenant: str | None = None) -> JobAnswer:
        return await self._call(job_calls.cancel(id, tenant=tenant or self._tenant))

    async def retry(self, id: str, new_id: str | None = None, *, tenant: str | None = None) -> JobAnswer:
        """A new job of the same document under `new_id` (None: a random one), its `retry_of` naming the old one."""
        return await self._call(job_calls.retry(id, new_id=new_id, tenant=tenant or self._tenant))

    async def delete(self, id: str, *, tenant: str | None = None) -> None:
        """Only a final job can be deleted; else Conflict."""
        await self._call(job_calls.delete(id, tenant=tenant or self._tenant))

    async def why(self, id: str, *, tenant: str | None = None) -> WhyAnswer:
        return await self._call(job_calls.why(id, tenant=tenant or self._tenant))

    async def wait(self, id: str, *, timeout_s: float | None = None, tenant: str | None = None) -> JobAnswer:
        """The job once it is final, or as it stands when `timeout_s` are over (see `is_final`)."""
        plan = plans.wait_for_job(id, tenant=tenant or self._tenant, timeout_s=timeout_s, policy=self._policy)
        return await self._transport.run(plan)

    async def artifacts(
        self, id: str, *, attempt: int | None = None, tenant: str | None = None
    ) -> Sequence[ArtifactAnswer]:
        """Of the last attempt, or of the given one."""
        call = job_calls.artifacts(id, tenant=tenant or self._tenant, attempt=attempt)
        return (await self._call(call)).artifacts

    async def download_artifacts(
        self, id: str, directory: Path | str, *, attempt: int | None = None, tenant: str | None = None
    ) -> Sequence[Path]:
        """Writes them beneath `directory`, each whole or not at all; returns where. Raises UnsafeArtifact."""
        plan = plans.download_artifacts(
            id, Path(directory), tenant=tenant or self._tenant, attempt=attempt, policy=self._policy
        )
        return await self._transport.run(plan)

    async def read_log(
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
        return await self._call(call)

    async def stream_log(
        self,
        id: str,
        *,
        step: str | None = None,
        stream: str = "stdout",
        attempt: int | None = None,
        offset: int = 0,
        tenant: str | None = None,
    ) -> AsyncIterator[bytes]:
        """As read_log, piece by piece: a log of any size costs no memory. A broken connection is Unreachable."""
        call = job_calls.read_log(
            id, tenant=tenant or self._tenant, attempt=attempt, step=step, stream=stream, offset=offset,
            bytes_max=None,
        )  # fmt: skip
        async with aclosing(self._transport.stream(call)) as pieces:
            async for piece in pieces:
                yield piece

    async def follow_log(
        self,
        id: str,
        *,
        step: str | None = None,
        attempt: int | None = None,
        tenant: str | None = None,
        watch: Watch | None = None,
        policy: RetryPolicy = FOLLOWING,
    ) -> AsyncIterator[LogItem]:
        """All streams from their start, as they grow, until LogEnd; over all attempts unless one is named. A broken
        connection is taken up again behind the last byte, within `policy`; `watch` is told of each break."""
        call = job_calls.follow_log(id, tenant=tenant or self._tenant, attempt=attempt, step=step)
        async with aclosing(self._transport.follow(log_follower(call, policy), watch)) as items:
            async for item in items:
                yield item

    async def events(
        self, after: str | None = None, *, tenant: str | None = None, watch: Watch | None = None
    ) -> AsyncIterator[JobChange]:
        """Every change of state, in order, at least once, for ever. Raises Gone when `after` is no longer kept."""
        call = job_calls.follow_events(after=after, tenant=tenant or self._tenant)
        async with aclosing(self._transport.follow(event_follower(call), watch)) as items:
            async for item in items:
                yield item

    async def raw(self, call: Call[Any]) -> Any:
        """The answer to a call of your own making, with this client's address, token and patience."""
        return await self._call(call)
