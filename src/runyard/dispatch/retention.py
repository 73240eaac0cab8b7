"""Deletes what is older than its kept time or above its bytes, oldest first, never of an unfinished job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from runyard.ledger.port import Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import UserError

BATCH = 200
HISTORY_BATCH = 20
AUDIT_KEPT_S = 365 * 86400.0
EVENTS_KEPT_S = 7 * 86400.0
HISTORY_KEPT_S = 2 * 86400.0
MACHINES_KEPT_S = 86400.0
"""Of what is gone: long enough that no late create can come under a name that is forgotten."""

log = structlog.get_logger()


class Store(Protocol):
    """What logs and artifacts have in common here."""

    async def delete(self, key: AttemptKey) -> None: ...

    async def delete_job(self, uid: str) -> None: ...

    async def size_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long, and how much at most (None: no bound)."""

    jobs_s: float
    logs_s: float
    artifacts_s: float
    logs_bytes_max: int | None = None
    artifacts_bytes_max: int | None = None


class Retention:
    def __init__(self, keep: Keep, *, ledger: Ledger, logs: Store, artifacts: Store) -> None:
        self._keep = keep
        self._ledger = ledger
        self._logs = logs
        self._artifacts = artifacts

    async def sweep(self) -> None:
        """One pass over all kinds. A crash between a deletion and its mark repeats the deletion, which is harmless."""
        now = await self._ledger.now()
        ledger, keep = self._ledger, self._keep
        logs = _Kind(self._logs, ledger.list_expired_logs, ledger.mark_logs_deleted)
        artifacts = _Kind(self._artifacts, ledger.list_expired_artifacts, ledger.mark_artifacts_deleted)
        await self._by_age("logs", logs, now - keep.logs_s)
        await self._by_age("artifacts", artifacts, now - keep.artifacts_s)
        await self._by_size("logs", logs, keep.logs_bytes_max, now)
        await self._by_size("artifacts", artifacts, keep.artifacts_bytes_max, now)
        await self._jobs(now - keep.jobs_s)
        while await ledger.delete_events(before=now - EVENTS_KEPT_S, limit=BATCH) == BATCH:
            pass
        while await ledger.delete_gone_machines(before=now - MACHINES_KEPT_S, limit=BATCH) == BATCH:
            pass
        while await ledger.delete_history(before=now - HISTORY_KEPT_S, buckets=HISTORY_BATCH):
            pass
        await ledger.delete_expired_sessions(before=now, limit=BATCH)
        await ledger.delete_audit(before=now - AUDIT_KEPT_S, limit=BATCH)

    async def _by_age(self, name: str, kind: _Kind, ended_before: float) -> None:
        while keys := await kind.list_expired(ended_before=ended_before, limit=BATCH):
            await self._delete(name, kind, keys)

    async def _by_size(self, name: str, kind: _Kind, bytes_max: int | None, now: float) -> None:
        if bytes_max is None:
            return
        while await kind.store.size_bytes() > bytes_max:
            keys = await kind.list_expired(ended_before=now, limit=BATCH // 10)
            if not keys:
                return
            await self._delete(name, kind, keys)

    async def _delete(self, name: str, kind: _Kind, keys: list[AttemptKey]) -> None:
        for key in keys:
            await kind.store.delete(key)
        await kind.mark(keys)
        log.info("retention_deleted", kind=name, attempts=len(keys))

    async def _jobs(self, ended_before: float) -> None:
        while uids := await self._ledger.list_expired_jobs(ended_before=ended_before, limit=BATCH):
            for uid in uids:
                await self._forget(uid)
            log.info("retention_deleted", kind="jobs", jobs=len(uids))

    async def _forget(self, uid: str) -> None:
        """What is kept by job goes as a whole: attempt by attempt, the job's own empty folder would stay for ever."""
        await self._logs.delete_job(uid)
        await self._artifacts.delete_job(uid)
        try:
            await self._ledger.delete_job(uid)
        except UserError:
            return  # somebody else deleted it


class ListExpired(Protocol):
    async def __call__(self, *, ended_before: float, limit: int) -> list[AttemptKey]: ...


@dataclass(frozen=True, slots=True)
class _Kind:
    store: Store
    list_expired: ListExpired
    mark: Callable[[Iterable[AttemptKey]], Awaitable[None]]
