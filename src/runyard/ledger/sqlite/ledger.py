"""The port on SQLite: binds each method to its statements, on the writer or on a reader's snapshot."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from runyard.ledger.migrations import Migration, list_migrations
from runyard.ledger.port import Claimed, ClaimRequest, EndedCounts, JobFilter, Page, Received, Submitted
from runyard.ledger.sqlite import (
    audit,
    claims,
    events,
    history,
    jobs,
    listing,
    lookback,
    machines,
    operations,
    pools,
    queues,
    retention,
    secrets,
    settling,
    tokens,
    waiting,
)
from runyard.ledger.sqlite.connection import FileLock, connect_writer, create_file, unavailable
from runyard.ledger.sqlite.migrating import migrate
from runyard.ledger.sqlite.reader import Reader
from runyard.ledger.sqlite.renewing import SqliteRenewer
from runyard.ledger.sqlite.retention import Kept
from runyard.ledger.sqlite.transaction import Transaction
from runyard.ledger.sqlite.writer import Writer
from runyard.ledger.subscriptions import Hub, TopicSubscription
from runyard.model.attempt import Attempt, AttemptKey, Progress
from runyard.model.audit import AuditLine
from runyard.model.clock import Clock
from runyard.model.errors import LedgerUnavailable
from runyard.model.event import JobEvent
from runyard.model.history import HistoryRow, HistorySum, Subject
from runyard.model.job import Job, NewJob
from runyard.model.machine import Binding, Machine, MachineState
from runyard.model.operation import Operation, OperationKind
from runyard.model.outcome import Outcome
from runyard.model.pool import Availability, ClassDemand, Fence, Pool, PoolHealth, PoolSettings
from runyard.model.queue import Queue, QueueSettings, Tenant, TenantSettings
from runyard.model.secret import StoredSecret
from runyard.model.token import Token
from runyard.model.verdict import Decide
from runyard.model.waiting import TenantDepth, TenantShare, WaitFacts

MEMORY = ":memory:"

T = TypeVar("T")


class SqliteLedger:
    """`path` is a file, or `:memory:`. With `is_threaded` False every call runs at once in the caller's thread, reads
    too: for virtual time. An in-memory database has one connection, so its reads go through the writer."""

    def __init__(
        self,
        path: str,
        *,
        clock: Clock,
        is_threaded: bool = True,
        migrations: tuple[Migration, ...] | None = None,
    ) -> None:
        self._path = path
        self._clock = clock
        self._is_threaded = is_threaded
        self._migrations = migrations
        self._hub = Hub()
        self._lock: FileLock | None = None
        self._writer: Writer | None = None
        self._reader: Reader | None = None

    # -- life -----------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        await self._off_loop(self._open)

    async def close(self) -> None:
        await self._off_loop(self._close)

    async def now(self) -> float:
        return self._clock.now()

    def subscribe(self, *topics: str) -> TopicSubscription:
        return self._hub.subscribe(*topics)

    async def _off_loop(self, function: Callable[[], None]) -> None:
        if self._is_threaded:
            await asyncio.to_thread(function)
        else:
            function()

    def _open(self) -> None:
        if self._writer is not None:
            return
        is_file = self._path != MEMORY
        if is_file:
            self._lock = FileLock.acquire(Path(self._path))
        try:
            if is_file:
                create_file(Path(self._path))
            connection = self._connect()
            self._writer = Writer(
                connection, path=self._path, clock=self._clock, hub=self._hub, is_threaded=self._is_threaded
            )
            if is_file and self._is_threaded:
                self._reader = Reader(self._path, clock=self._clock)
        except BaseException:
            self._close()
            raise

    def _connect(self) -> sqlite3.Connection:
        """The writing connection, on a database that is of this release."""
        migrations = self._migrations if self._migrations is not None else list_migrations("sqlite")
        connection: sqlite3.Connection | None = None
        try:
            connection = connect_writer(self._path)
            migrate(connection, migrations, now=self._clock.now(), where=self._path)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise unavailable(self._path, error) from error
            raise
        return connection

    def _close(self) -> None:
        """Readers first: the last connection to close folds the WAL into the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def _write(self, function: Callable[[Transaction], T]) -> T:
        if self._writer is None:
            raise LedgerUnavailable(f"ledger {self._path}: it is not open", cure="open it first")
        return await self._writer.run(function)

    async def _read(self, function: Callable[[Transaction], T]) -> T:
        if self._reader is None:
            return await self._write(function)
        return await self._reader.run(function)

    # -- jobs -----------------------------------------------------------------------------------------------------
    async def submit(self, jobs_: Sequence[NewJob]) -> list[Submitted | Exception]:
        return await self._write(lambda tx: jobs.submit(tx, jobs_))

    async def find_job(self, tenant: str, job_id: str) -> Job | None:
        return await self._read(lambda tx: jobs.find_job(tx, tenant, job_id))

    async def get_job(self, uid: str) -> Job | None:
        return await self._read(lambda tx: jobs.get_job(tx, uid))

    async def list_jobs(self, filter_: JobFilter, *, limit: int, cursor: str | None = None) -> Page:
        return await self._read(lambda tx: listing.list_jobs(tx, filter_, limit=limit, cursor=cursor))

    async def list_attempts(self, uid: str) -> list[Attempt]:
        return await self._read(lambda tx: jobs.list_attempts(tx, uid))

    async def get_attempt(self, key: AttemptKey) -> Attempt | None:
        return await self._read(lambda tx: jobs.get_attempt(tx, key))

    async def get_attempts(self, keys: Sequence[AttemptKey]) -> list[Attempt]:
        return await self._read(lambda tx: lookback.get_attempts(tx, keys))

    async def request_cancel(self, uid: str) -> Job:
        return await self._write(lambda tx: jobs.request_cancel(tx, uid))

    async def delete_job(self, uid: str) -> None:
        await self._write(lambda tx: jobs.delete_job(tx, uid))

    async def wait_facts(self, uid: str) -> WaitFacts | None:
        return await self._read(lambda tx: waiting.wait_facts(tx, uid))

    # -- what people look back at ---------------------------------------------------------------------------------
    async def list_job_events(self, uid: str, *, limit: int) -> list[JobEvent]:
        return await self._read(lambda tx: lookback.list_job_events(tx, uid, limit=limit))

    async def list_class_attempts(self, class_key: str, *, limit: int) -> list[Attempt]:
        return await self._read(lambda tx: lookback.list_class_attempts(tx, class_key, limit=limit))

    async def list_broken_attempts(self, pool: str, *, since: float, limit: int) -> list[Claimed]:
        return await self._read(lambda tx: lookback.list_broken_attempts(tx, pool, since=since, limit=limit))

    async def list_longest_waiting(
        self, *, queue: str | None = None, tenants: tuple[str, ...] | None = None, limit: int
    ) -> list[Job]:
        return await self._read(
            lambda tx: lookback.list_longest_waiting(tx, queue=queue, tenants=tenants, limit=limit)
        )

    async def list_shares(self, queue: str, *, limit: int) -> list[TenantShare]:
        return await self._read(lambda tx: lookback.list_shares(tx, queue, limit=limit))

    async def list_tenant_depths(self, tenant: str, *, limit: int) -> list[TenantDepth]:
        return await self._read(lambda tx: lookback.list_tenant_depths(tx, tenant, limit=limit))

    async def read_received(self, *, since: float, now: float) -> Received:
        return await self._read(lambda tx: lookback.read_received(tx, since=since, now=now))

    async def count_ended(self, *, since: float) -> EndedCounts:
        return await self._read(lambda tx: lookback.count_ended(tx, since=since))

    async def oldest_ready(self, queue: str) -> str | None:
        return await self._read(lambda tx: waiting.oldest_ready(tx, queue))

    # -- queues, tenants ------------------------------------------------------------------------------------------
    async def put_queue(self, settings: QueueSettings) -> Queue:
        return await self._write(lambda tx: queues.put_queue(tx, settings))

    async def get_queue(self, name: str) -> Queue | None:
        return await self._read(lambda tx: queues.get_queue(tx, name))

    async def list_queues(self) -> list[Queue]:
        return await self._read(queues.list_queues)

    async def delete_queue(self, name: str) -> None:
        await self._write(lambda tx: queues.delete_queue(tx, name))

    async def put_tenant(self, settings: TenantSettings) -> Tenant:
        return await self._write(lambda tx: queues.put_tenant(tx, settings))

    async def get_tenant(self, name: str) -> Tenant | None:
        return await self._read(lambda tx: queues.get_tenant(tx, name))

    async def list_tenants(self) -> list[Tenant]:
        return await self._read(queues.list_tenants)

    # -- tokens ---------------------------------------------------------------------------------------------------
    async def put_token(self, token: Token) -> None:
        await self._write(lambda tx: tokens.put_token(tx, token))

    async def find_token(self, secret_hash: str) -> Token | None:
        return await self._read(lambda tx: tokens.find_token(tx, secret_hash))

    async def list_tokens(self) -> list[Token]:
        return await self._read(tokens.list_tokens)

    async def delete_token(self, token_id: str) -> bool:
        return await self._write(lambda tx: tokens.delete_token(tx, token_id))

    async def delete_expired_sessions(self, *, before: float, limit: int) -> int:
        return await self._write(lambda tx: tokens.delete_expired_sessions(tx, before=before, limit=limit))

    # -- events ---------------------------------------------------------------------------------------------------
    async def list_events(
        self, *, after: int, limit: int, tenants: tuple[str, ...] | None = None
    ) -> list[JobEvent]:
        return await self._read(lambda tx: events.list_events(tx, after=after, limit=limit, tenants=tenants))

    async def event_bounds(self) -> tuple[int, int]:
        return await self._read(events.event_bounds)

    # -- pools ----------------------------------------------------------------------------------------------------
    async def put_pool(self, settings: PoolSettings) -> Pool:
        return await self._write(lambda tx: pools.put_pool(tx, settings))

    async def get_pool(self, name: str) -> Pool | None:
        return await self._read(lambda tx: pools.get_pool(tx, name))

    async def list_pools(self) -> list[Pool]:
        return await self._read(pools.list_pools)

    async def delete_pool(self, name: str) -> None:
        await self._write(lambda tx: pools.delete_pool(tx, name))

    async def set_pool_paused(self, name: str, *, is_paused: bool) -> Pool:
        return await self._write(lambda tx: pools.set_pool_paused(tx, name, is_paused=is_paused))

    async def acquire_pool(self, name: str, *, owner: str, lease_s: float) -> Fence | None:
        return await self._write(lambda tx: pools.acquire_pool(tx, name, owner=owner, lease_s=lease_s))

    async def renew_pool(self, fence: Fence, *, lease_s: float) -> None:
        await self._write(lambda tx: pools.renew_pool(tx, fence, lease_s=lease_s))

    def renewer(self) -> SqliteRenewer:
        return SqliteRenewer(self._write)

    async def release_pool(self, fence: Fence) -> None:
        await self._write(lambda tx: pools.release_pool(tx, fence))

    async def set_pool_health(self, fence: Fence, *, health: PoolHealth, message: str) -> None:
        await self._write(lambda tx: pools.set_pool_health(tx, fence, health=health, message=message))

    async def set_availability(self, fence: Fence, answers: Mapping[str, Availability]) -> None:
        await self._write(lambda tx: pools.set_availability(tx, fence, answers))

    # -- dispatch -------------------------------------------------------------------------------------------------
    async def list_demand(self, fence: Fence) -> list[ClassDemand]:
        return await self._read(lambda tx: pools.list_demand(tx, fence))

    async def claim(self, request: ClaimRequest) -> list[Claimed]:
        return await self._write(lambda tx: claims.claim(tx, request))

    async def list_unfinished(self, fence: Fence) -> list[Claimed]:
        return await self._read(lambda tx: settling.list_unfinished(tx, fence))

    async def record_phases(self, fence: Fence, key: AttemptKey, phases: Mapping[str, float]) -> None:
        await self._write(lambda tx: settling.record_phases(tx, fence, key, phases))

    async def record_status(
        self, fence: Fence, key: AttemptKey, *, placement: Mapping[str, str], progress: Progress | None
    ) -> None:
        await self._write(
            lambda tx: settling.record_status(tx, fence, key, placement=placement, progress=progress)
        )

    async def settle(
        self,
        fence: Fence,
        key: AttemptKey,
        outcome: Outcome,
        *,
        decide: Decide,
        phases: Mapping[str, float] | None = None,
        outputs: Mapping[str, str] | None = None,
        placement: Mapping[str, str] | None = None,
    ) -> Job | None:
        ending = settling.Ending(
            outcome=outcome,
            decide=decide,
            phases=phases or {},
            outputs=outputs or {},
            placement=placement or {},
        )
        return await self._write(lambda tx: settling.settle(tx, fence, key, ending))

    async def expire_queued(self, *, limit: int) -> list[str]:
        return await self._write(lambda tx: waiting.expire_queued(tx, limit=limit))

    async def promote_due(self, *, limit: int) -> int:
        return await self._write(lambda tx: waiting.promote_due(tx, limit=limit))

    async def next_due_at(self) -> float | None:
        return await self._read(waiting.next_due_at)

    # -- machines -------------------------------------------------------------------------------------------------
    async def intend_machine(
        self, fence: Fence, name: str, *, slots: int, facts: Mapping[str, str]
    ) -> Machine:
        return await self._write(
            lambda tx: machines.intend_machine(tx, fence, name, slots=slots, facts=facts)
        )

    async def get_machine(self, name: str) -> Machine | None:
        return await self._read(lambda tx: machines.get_machine(tx, name))

    async def list_machines(self, pool: str, *, with_gone: bool = False) -> list[Machine]:
        return await self._read(lambda tx: machines.list_machines(tx, pool, with_gone=with_gone))

    async def change_machine(
        self, fence: Fence, name: str, *, seen: MachineState, to: MachineState, facts: Mapping[str, str]
    ) -> bool:
        return await self._write(
            lambda tx: machines.change_machine(tx, fence, name, seen=seen, to=to, facts=facts)
        )

    async def fence_machine(self, fence: Fence, name: str, reason: str) -> bool:
        return await self._write(lambda tx: machines.fence_machine(tx, fence, name, reason))

    async def set_machine_drained(self, name: str, *, is_drained: bool) -> Machine:
        return await self._write(lambda tx: machines.set_machine_drained(tx, name, is_drained=is_drained))

    async def bind_attempt(self, fence: Fence, key: AttemptKey, machine: str) -> bool:
        return await self._write(lambda tx: machines.bind_attempt(tx, fence, key, machine))

    async def unbind_attempt(self, fence: Fence, key: AttemptKey) -> bool:
        return await self._write(lambda tx: machines.unbind_attempt(tx, fence, key))

    async def stop_attempt(self, fence: Fence, key: AttemptKey, *, grace_s: float) -> None:
        await self._write(lambda tx: machines.stop_attempt(tx, fence, key, grace_s=grace_s))

    async def end_attempt(self, fence: Fence, key: AttemptKey, outcome: Outcome) -> Outcome | None:
        return await self._write(lambda tx: machines.end_attempt(tx, fence, key, outcome))

    async def release_attempt(self, fence: Fence, key: AttemptKey) -> bool:
        return await self._write(lambda tx: machines.release_attempt(tx, fence, key))

    async def get_binding(self, key: AttemptKey) -> Binding | None:
        return await self._read(lambda tx: machines.get_binding(tx, key))

    async def list_bindings(self, pool: str, *, machine: str | None = None) -> list[Binding]:
        return await self._read(lambda tx: machines.list_bindings(tx, pool, machine=machine))

    async def contact_machine(
        self, name: str, *, slots: int | None = None, facts: Mapping[str, str] | None = None
    ) -> Machine | None:
        return await self._write(
            lambda tx: machines.contact_machine(tx, name, slots=slots, facts=facts or {})
        )

    async def take_attempt(self, machine: str, key: AttemptKey) -> bool:
        return await self._write(lambda tx: machines.take_attempt(tx, machine, key))

    async def report_attempt(
        self,
        machine: str,
        key: AttemptKey,
        *,
        phases: Mapping[str, float],
        outcome: Outcome | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> Binding | None:
        return await self._write(
            lambda tx: machines.report_attempt(
                tx, machine, key, phases=phases, outcome=outcome, outputs=outputs or {}
            )
        )

    async def drop_attempt(self, machine: str, key: AttemptKey) -> None:
        await self._write(lambda tx: machines.drop_attempt(tx, machine, key))

    async def delete_gone_machines(self, *, before: float, limit: int) -> int:
        return await self._write(lambda tx: machines.delete_gone_machines(tx, before=before, limit=limit))

    # -- operations -----------------------------------------------------------------------------------------------
    async def request_operation(
        self, pool: str, kind: OperationKind, arguments: Mapping[str, Any]
    ) -> Operation:
        return await self._write(lambda tx: operations.request_operation(tx, pool, kind, arguments))

    async def list_operations(self, pool: str) -> list[Operation]:
        return await self._read(lambda tx: operations.list_operations(tx, pool))

    async def get_operation(self, operation_id: str) -> Operation | None:
        return await self._read(lambda tx: operations.get_operation(tx, operation_id))

    async def get_last_answered(self, pool: str, kind: OperationKind) -> Operation | None:
        return await self._read(lambda tx: operations.get_last_answered(tx, pool, kind))

    async def finish_operation(self, fence: Fence, operation_id: str, result: Mapping[str, Any]) -> None:
        await self._write(lambda tx: operations.finish_operation(tx, fence, operation_id, result))

    # -- audit ----------------------------------------------------------------------------------------------------
    async def add_audit_line(self, line: AuditLine) -> None:
        await self._write(lambda tx: audit.add_audit_line(tx, line))

    async def list_audit(self, *, before: int | None = None, limit: int) -> list[AuditLine]:
        return await self._read(lambda tx: audit.list_audit(tx, before=before, limit=limit))

    async def delete_audit(self, *, before: float, limit: int) -> int:
        return await self._write(lambda tx: audit.delete_audit(tx, before=before, limit=limit))

    # -- secrets --------------------------------------------------------------------------------------------------
    async def put_secret(self, secret: StoredSecret) -> None:
        await self._write(lambda tx: secrets.put_secret(tx, secret))

    async def get_secret(self, tenant: str, name: str) -> StoredSecret | None:
        return await self._read(lambda tx: secrets.get_secret(tx, tenant, name))

    async def list_secrets(self, tenant: str | None, *, limit: int) -> list[StoredSecret]:
        return await self._read(lambda tx: secrets.list_secrets(tx, tenant, limit=limit))

    async def delete_secret(self, tenant: str, name: str) -> bool:
        return await self._write(lambda tx: secrets.delete_secret(tx, tenant, name))

    async def note_secrets_used(
        self, uses: Sequence[tuple[StoredSecret, AuditLine]], *, attempt: str
    ) -> None:
        await self._write(lambda tx: secrets.note_secrets_used(tx, uses, attempt=attempt))

    async def count_secret_keys(self) -> dict[str, int]:
        return await self._read(secrets.count_secret_keys)

    async def list_secrets_of_key(self, key_id: str, *, limit: int) -> list[StoredSecret]:
        return await self._read(lambda tx: secrets.list_secrets_of_key(tx, key_id, limit=limit))

    async def reseal_secret(self, seen: StoredSecret, *, key_id: str, sealed: bytes) -> bool:
        return await self._write(lambda tx: secrets.reseal_secret(tx, seen, key_id=key_id, sealed=sealed))

    async def secret_realm(self, proposed: str) -> str:
        return await self._write(lambda tx: secrets.secret_realm(tx, proposed))

    # -- history --------------------------------------------------------------------------------------------------
    async def add_history(self, rows: Sequence[HistoryRow]) -> None:
        await self._write(lambda tx: history.add_history(tx, rows))

    async def read_history(
        self, subject: Subject, name: str, *, begin: int, end: int, step_s: int
    ) -> list[HistorySum]:
        return await self._read(
            lambda tx: history.read_history(tx, subject, name, begin=begin, end=end, step_s=step_s)
        )

    async def delete_history(self, *, before: float, buckets: int) -> int:
        return await self._write(lambda tx: history.delete_history(tx, before=before, buckets=buckets))

    # -- retention ------------------------------------------------------------------------------------------------
    async def list_expired_logs(self, *, ended_before: float, limit: int) -> list[AttemptKey]:
        return await self._read(
            lambda tx: retention.list_expired(tx, Kept.LOGS, ended_before=ended_before, limit=limit)
        )

    async def list_expired_artifacts(self, *, ended_before: float, limit: int) -> list[AttemptKey]:
        return await self._read(
            lambda tx: retention.list_expired(tx, Kept.ARTIFACTS, ended_before=ended_before, limit=limit)
        )

    async def mark_logs_deleted(self, keys: Iterable[AttemptKey]) -> None:
        marked = list(keys)
        await self._write(lambda tx: retention.mark_deleted(tx, Kept.LOGS, marked))

    async def mark_artifacts_deleted(self, keys: Iterable[AttemptKey]) -> None:
        marked = list(keys)
        await self._write(lambda tx: retention.mark_deleted(tx, Kept.ARTIFACTS, marked))

    async def is_logs_deleted(self, key: AttemptKey) -> bool:
        return await self._read(lambda tx: retention.is_logs_deleted(tx, key))

    async def list_expired_jobs(self, *, ended_before: float, limit: int) -> list[str]:
        return await self._read(
            lambda tx: retention.list_expired_jobs(tx, ended_before=ended_before, limit=limit)
        )

    async def delete_events(self, *, before: float, limit: int) -> int:
        return await self._write(lambda tx: events.delete_events(tx, before=before, limit=limit))
