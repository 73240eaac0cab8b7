"""The port on PostgreSQL: binds each method to its stored function or its reads.

Submits, phases and settles of one service are combined: what is asked while one call is under way goes in the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from runyard.ledger import rows, statements
from runyard.ledger.migrations import Migration
from runyard.ledger.port import Claimed, ClaimRequest, EndedCounts, JobFilter, Page, Received, Submitted
from runyard.ledger.postgresql import (
    audit,
    dispatch,
    events,
    history,
    jobs,
    listing,
    lookback,
    machines,
    pools,
    queues,
    retention,
    secrets,
    waiting,
)
from runyard.ledger.postgresql.address import Address
from runyard.ledger.postgresql.batching import Batcher
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.renewing import PostgresqlRenewer
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.ledger.subscriptions import Hub, TopicSubscription
from runyard.model.attempt import Attempt, AttemptKey, Progress
from runyard.model.audit import AuditLine
from runyard.model.clock import Clock
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

BATCH_MAX = 200

T = TypeVar("T")


class PostgresqlLedger:
    """`url` is postgresql://…; any number of services may open the same one. `clock` replaces the database's own clock
    and is for tests only: services with different clocks would disagree about leases."""

    def __init__(
        self, url: str, *, clock: Clock | None = None, migrations: tuple[Migration, ...] | None = None
    ) -> None:
        self._hub = Hub()
        self._database = Database(Address.parse(url), hub=self._hub, clock=clock, migrations=migrations)
        self._submits: Batcher[Sequence[NewJob], list[Submitted | Exception]]
        self._submits = Batcher(self._send_submits, size_max=BATCH_MAX, size_of=len)
        self._phases: Batcher[dispatch.Report, Mapping[str, Any]]
        self._phases = Batcher(self._send_phases, size_max=BATCH_MAX)
        self._settles: Batcher[dispatch.Report, Mapping[str, Any]]
        self._settles = Batcher(self._send_settles, size_max=BATCH_MAX)

    # -- life -----------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        for batcher in (self._submits, self._phases, self._settles):
            await batcher.close()
        await self._database.close()

    async def now(self) -> float:
        row = await self._read(
            lambda snapshot: snapshot.one("SELECT runyard_now(:at) AS now", at=snapshot.at)
        )
        return float(row["now"])

    def subscribe(self, *topics: str) -> TopicSubscription:
        return self._hub.subscribe(*topics)

    async def _read(self, function: Callable[[Snapshot], Awaitable[T]]) -> T:
        """For what is one statement."""
        async with self._database.read() as snapshot:
            return await function(snapshot)

    async def _agreeing(self, function: Callable[[Snapshot], Awaitable[T]]) -> T:
        """For several statements that must agree."""
        async with self._database.snapshot() as snapshot:
            return await function(snapshot)

    async def _send_submits(
        self, batches: Sequence[Sequence[NewJob]]
    ) -> list[list[Submitted | Exception] | Exception]:
        answers = iter(await jobs.submit(self._database, [new for batch in batches for new in batch]))
        return [[next(answers) for _ in batch] for batch in batches]

    async def _send_phases(self, reports: Sequence[dispatch.Report]) -> list[Mapping[str, Any] | Exception]:
        return await dispatch.send_reports(self._database, "record_phases", reports)

    async def _send_settles(self, reports: Sequence[dispatch.Report]) -> list[Mapping[str, Any] | Exception]:
        return await dispatch.send_reports(self._database, "settle", reports)

    # -- jobs -----------------------------------------------------------------------------------------------------
    async def submit(self, jobs_: Sequence[NewJob]) -> list[Submitted | Exception]:
        return await self._submits.ask(jobs_)

    async def find_job(self, tenant: str, job_id: str) -> Job | None:
        return await self._read(lambda snapshot: jobs.find_job(snapshot, tenant, job_id))

    async def get_job(self, uid: str) -> Job | None:
        return await self._read(lambda snapshot: jobs.get_job(snapshot, uid))

    async def list_jobs(self, filter_: JobFilter, *, limit: int, cursor: str | None = None) -> Page:
        return await self._agreeing(
            lambda snapshot: listing.list_jobs(snapshot, filter_, limit=limit, cursor=cursor)
        )

    async def list_attempts(self, uid: str) -> list[Attempt]:
        return await self._read(lambda snapshot: jobs.list_attempts(snapshot, uid))

    async def get_attempt(self, key: AttemptKey) -> Attempt | None:
        return await self._read(lambda snapshot: jobs.get_attempt(snapshot, key))

    async def get_attempts(self, keys: Sequence[AttemptKey]) -> list[Attempt]:
        return await self._read(lambda snapshot: lookback.get_attempts(snapshot, keys))

    async def request_cancel(self, uid: str) -> Job:
        return await jobs.request_cancel(self._database, uid)

    async def delete_job(self, uid: str) -> None:
        await jobs.delete_job(self._database, uid)

    async def wait_facts(self, uid: str) -> WaitFacts | None:
        return await self._agreeing(lambda snapshot: waiting.wait_facts(snapshot, uid))

    # -- what people look back at ---------------------------------------------------------------------------------
    async def list_job_events(self, uid: str, *, limit: int) -> list[JobEvent]:
        return await self._read(lambda snapshot: lookback.list_job_events(snapshot, uid, limit=limit))

    async def list_class_attempts(self, class_key: str, *, limit: int) -> list[Attempt]:
        return await self._read(
            lambda snapshot: lookback.list_class_attempts(snapshot, class_key, limit=limit)
        )

    async def list_broken_attempts(self, pool: str, *, since: float, limit: int) -> list[Claimed]:
        return await self._agreeing(
            lambda snapshot: lookback.list_broken_attempts(snapshot, pool, since=since, limit=limit)
        )

    async def list_longest_waiting(
        self, *, queue: str | None = None, tenants: tuple[str, ...] | None = None, limit: int
    ) -> list[Job]:
        return await self._agreeing(
            lambda snapshot: lookback.list_longest_waiting(
                snapshot, queue=queue, tenants=tenants, limit=limit
            )
        )

    async def list_shares(self, queue: str, *, limit: int) -> list[TenantShare]:
        return await self._read(lambda snapshot: lookback.list_shares(snapshot, queue, limit=limit))

    async def list_tenant_depths(self, tenant: str, *, limit: int) -> list[TenantDepth]:
        return await self._read(lambda snapshot: lookback.list_tenant_depths(snapshot, tenant, limit=limit))

    async def read_received(self, *, since: float, now: float) -> Received:
        return await self._agreeing(lambda snapshot: lookback.read_received(snapshot, since=since, now=now))

    async def count_ended(self, *, since: float) -> EndedCounts:
        return await self._read(lambda snapshot: lookback.count_ended(snapshot, since=since))

    async def oldest_ready(self, queue: str) -> str | None:
        return await self._read(lambda snapshot: waiting.oldest_ready(snapshot, queue))

    # -- queues, tenants ------------------------------------------------------------------------------------------
    async def put_queue(self, settings: QueueSettings) -> Queue:
        return await queues.put_queue(self._database, settings)

    async def get_queue(self, name: str) -> Queue | None:
        return await self._read(lambda snapshot: queues.get_queue(snapshot, name))

    async def list_queues(self) -> list[Queue]:
        return await self._read(queues.list_queues)

    async def delete_queue(self, name: str) -> None:
        await queues.delete_queue(self._database, name)

    async def put_tenant(self, settings: TenantSettings) -> Tenant:
        return await queues.put_tenant(self._database, settings)

    async def get_tenant(self, name: str) -> Tenant | None:
        return await self._read(lambda snapshot: queues.get_tenant(snapshot, name))

    async def list_tenants(self) -> list[Tenant]:
        return await self._read(queues.list_tenants)

    # -- tokens ---------------------------------------------------------------------------------------------------
    async def put_token(self, token: Token) -> None:
        await queues.put_token(self._database, token)

    async def find_token(self, secret_hash: str) -> Token | None:
        return await self._read(lambda snapshot: queues.find_token(snapshot, secret_hash))

    async def list_tokens(self) -> list[Token]:
        return await self._read(queues.list_tokens)

    async def delete_token(self, token_id: str) -> bool:
        return await queues.delete_token(self._database, token_id)

    async def delete_expired_sessions(self, *, before: float, limit: int) -> int:
        return await queues.delete_expired_sessions(self._database, before=before, limit=limit)

    # -- events ---------------------------------------------------------------------------------------------------
    async def list_events(
        self, *, after: int, limit: int, tenants: tuple[str, ...] | None = None
    ) -> list[JobEvent]:
        return await self._read(
            lambda snapshot: events.list_events(snapshot, after=after, limit=limit, tenants=tenants)
        )

    async def event_bounds(self) -> tuple[int, int]:
        return await self._read(events.event_bounds)

    # -- pools ----------------------------------------------------------------------------------------------------
    async def put_pool(self, settings: PoolSettings) -> Pool:
        return await pools.put_pool(self._database, settings)

    async def get_pool(self, name: str) -> Pool | None:
        return await self._read(lambda snapshot: pools.get_pool(snapshot, name))

    async def list_pools(self) -> list[Pool]:
        return await self._read(pools.list_pools)

    async def delete_pool(self, name: str) -> None:
        await pools.delete_pool(self._database, name)

    async def set_pool_paused(self, name: str, *, is_paused: bool) -> Pool:
        return await pools.set_pool_paused(self._database, name, is_paused=is_paused)

    async def acquire_pool(self, name: str, *, owner: str, lease_s: float) -> Fence | None:
        return await pools.acquire_pool(self._database, name, owner=owner, lease_s=lease_s)

    async def renew_pool(self, fence: Fence, *, lease_s: float) -> None:
        await pools.renew_pool(self._database, fence, lease_s=lease_s)

    def renewer(self) -> PostgresqlRenewer:
        return PostgresqlRenewer(self._database)

    async def release_pool(self, fence: Fence) -> None:
        await pools.release_pool(self._database, fence)

    async def set_pool_health(self, fence: Fence, *, health: PoolHealth, message: str) -> None:
        await pools.set_pool_health(self._database, fence, health=health, message=message)

    async def set_availability(self, fence: Fence, answers: Mapping[str, Availability]) -> None:
        await pools.set_availability(self._database, fence, answers)

    # -- dispatch -------------------------------------------------------------------------------------------------
    async def list_demand(self, fence: Fence) -> list[ClassDemand]:
        return await self._agreeing(lambda snapshot: pools.list_demand(snapshot, fence))

    async def claim(self, request: ClaimRequest) -> list[Claimed]:
        return await dispatch.claim(self._database, request)

    async def list_unfinished(self, fence: Fence) -> list[Claimed]:
        return await self._agreeing(lambda snapshot: dispatch.list_unfinished(snapshot, fence))

    async def record_phases(self, fence: Fence, key: AttemptKey, phases: Mapping[str, float]) -> None:
        await self._phases.ask(dispatch.Report(fence, key, {"phases": phases}))

    async def record_status(
        self, fence: Fence, key: AttemptKey, *, placement: Mapping[str, str], progress: Progress | None
    ) -> None:
        await dispatch.record_status(self._database, fence, key, placement=placement, progress=progress)

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
        ending = dispatch.Ending(
            outcome=outcome,
            decide=decide,
            phases=phases or {},
            outputs=outputs or {},
            placement=placement or {},
        )
        while True:  # ends: each turn means that a cancel or another settle came between, and both come once
            standing = await self._read(lambda snapshot: dispatch.look(snapshot, fence, key))
            if standing.job is None or not standing.is_open:
                return standing.job
            document = dispatch.settling(standing.job, ending, standing.now)
            answer = await self._settles.ask(dispatch.Report(fence, key, document))
            if "job" in answer:
                return None if answer["job"] is None else rows.job_of(answer["job"])

    async def expire_queued(self, *, limit: int) -> list[str]:
        return await waiting.expire_queued(self._database, limit=limit)

    async def promote_due(self, *, limit: int) -> int:
        return await waiting.promote_due(self._database, limit=limit)

    async def next_due_at(self) -> float | None:
        return await self._read(waiting.next_due_at)

    # -- machines -------------------------------------------------------------------------------------------------
    async def intend_machine(
        self, fence: Fence, name: str, *, slots: int, facts: Mapping[str, str]
    ) -> Machine:
        return await machines.intend_machine(self._database, fence, name, slots=slots, facts=facts)

    async def get_machine(self, name: str) -> Machine | None:
        return await self._read(lambda snapshot: machines.get_machine(snapshot, name))

    async def list_machines(self, pool: str, *, with_gone: bool = False) -> list[Machine]:
        return await self._read(lambda snapshot: machines.list_machines(snapshot, pool, with_gone=with_gone))

    async def change_machine(
        self, fence: Fence, name: str, *, seen: MachineState, to: MachineState, facts: Mapping[str, str]
    ) -> bool:
        return await machines.change_machine(self._database, fence, name, seen=seen, to=to, facts=facts)

    async def fence_machine(self, fence: Fence, name: str, reason: str) -> bool:
        return await machines.fence_machine(self._database, fence, name, reason)

    async def set_machine_drained(self, name: str, *, is_drained: bool) -> Machine:
        return await machines.set_machine_drained(self._database, name, is_drained=is_drained)

    async def bind_attempt(self, fence: Fence, key: AttemptKey, machine: str) -> bool:
        return await machines.bind_attempt(self._database, fence, key, machine)

    async def unbind_attempt(self, fence: Fence, key: AttemptKey) -> bool:
        return await machines.unbind_attempt(self._database, fence, key)

    async def stop_attempt(self, fence: Fence, key: AttemptKey, *, grace_s: float) -> None:
        await machines.stop_attempt(self._database, fence, key, grace_s=grace_s)

    async def end_attempt(self, fence: Fence, key: AttemptKey, outcome: Outcome) -> Outcome | None:
        return await machines.end_attempt(self._database, fence, key, outcome)

    async def release_attempt(self, fence: Fence, key: AttemptKey) -> bool:
        return await machines.release_attempt(self._database, fence, key)

    async def get_binding(self, key: AttemptKey) -> Binding | None:
        return await self._read(lambda snapshot: machines.get_binding(snapshot, key))

    async def list_bindings(self, pool: str, *, machine: str | None = None) -> list[Binding]:
        return await self._read(lambda snapshot: machines.list_bindings(snapshot, pool, machine=machine))

    async def contact_machine(
        self, name: str, *, slots: int | None = None, facts: Mapping[str, str] | None = None
    ) -> Machine | None:
        return await machines.contact_machine(self._database, name, slots=slots, facts=facts or {})

    async def take_attempt(self, machine: str, key: AttemptKey) -> bool:
        return await machines.take_attempt(self._database, machine, key)

    async def report_attempt(
        self,
        machine: str,
        key: AttemptKey,
        *,
        phases: Mapping[str, float],
        outcome: Outcome | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> Binding | None:
        return await machines.report_attempt(
            self._database, machine, key, phases=phases, outcome=outcome, outputs=outputs or {}
        )

    async def drop_attempt(self, machine: str, key: AttemptKey) -> None:
        await machines.drop_attempt(self._database, machine, key)

    async def delete_gone_machines(self, *, before: float, limit: int) -> int:
        return await machines.delete_gone_machines(self._database, before=before, limit=limit)

    # -- operations -----------------------------------------------------------------------------------------------
    async def request_operation(
        self, pool: str, kind: OperationKind, arguments: Mapping[str, Any]
    ) -> Operation:
        return await pools.request_operation(self._database, pool, kind, arguments)

    async def list_operations(self, pool: str) -> list[Operation]:
        return await self._read(lambda snapshot: pools.list_operations(snapshot, pool))

    async def get_operation(self, operation_id: str) -> Operation | None:
        return await self._read(lambda snapshot: pools.get_operation(snapshot, operation_id))

    async def get_last_answered(self, pool: str, kind: OperationKind) -> Operation | None:
        return await self._read(lambda snapshot: pools.get_last_answered(snapshot, pool, kind))

    async def finish_operation(self, fence: Fence, operation_id: str, result: Mapping[str, Any]) -> None:
        await pools.finish_operation(self._database, fence, operation_id, result)

    # -- audit ----------------------------------------------------------------------------------------------------
    async def add_audit_line(self, line: AuditLine) -> None:
        await audit.add_audit_line(self._database, line)

    async def list_audit(self, *, before: int | None = None, limit: int) -> list[AuditLine]:
        return await self._read(lambda snapshot: audit.list_audit(snapshot, before=before, limit=limit))

    async def delete_audit(self, *, before: float, limit: int) -> int:
        return await audit.delete_audit(self._database, before=before, limit=limit)

    # -- secrets --------------------------------------------------------------------------------------------------
    async def put_secret(self, secret: StoredSecret) -> None:
        await secrets.put_secret(self._database, secret)

    async def get_secret(self, tenant: str, name: str) -> StoredSecret | None:
        return await self._read(lambda snapshot: secrets.get_secret(snapshot, tenant, name))

    async def list_secrets(self, tenant: str | None, *, limit: int) -> list[StoredSecret]:
        return await self._read(lambda snapshot: secrets.list_secrets(snapshot, tenant, limit=limit))

    async def delete_secret(self, tenant: str, name: str) -> bool:
        return await secrets.delete_secret(self._database, tenant, name)

    async def note_secrets_used(
        self, uses: Sequence[tuple[StoredSecret, AuditLine]], *, attempt: str
    ) -> None:
        await secrets.note_secrets_used(self._database, uses, attempt=attempt)

    async def count_secret_keys(self) -> dict[str, int]:
        return await self._read(secrets.count_secret_keys)

    async def list_secrets_of_key(self, key_id: str, *, limit: int) -> list[StoredSecret]:
        return await self._read(lambda snapshot: secrets.list_secrets_of_key(snapshot, key_id, limit=limit))

    async def reseal_secret(self, seen: StoredSecret, *, key_id: str, sealed: bytes) -> bool:
        return await secrets.reseal_secret(self._database, seen, key_id=key_id, sealed=sealed)

    async def secret_realm(self, proposed: str) -> str:
        return await secrets.secret_realm(self._database, proposed)

    # -- history --------------------------------------------------------------------------------------------------
    async def add_history(self, rows: Sequence[HistoryRow]) -> None:
        await history.add_history(self._database, rows)

    async def read_history(
        self, subject: Subject, name: str, *, begin: int, end: int, step_s: int
    ) -> list[HistorySum]:
        return await self._read(
            lambda snapshot: history.read_history(
                snapshot, subject, name, begin=begin, end=end, step_s=step_s
            )
        )

    async def delete_history(self, *, before: float, buckets: int) -> int:
        return await history.delete_history(self._database, before=before, buckets=buckets)

    # -- retention ------------------------------------------------------------------------------------------------
    async def list_expired_logs(self, *, ended_before: float, limit: int) -> list[AttemptKey]:
        statement = statements.LIST_EXPIRED_LOGS
        return await self._read(
            lambda snapshot: retention.list_expired(
                snapshot, statement, ended_before=ended_before, limit=limit
            )
        )

    async def list_expired_artifacts(self, *, ended_before: float, limit: int) -> list[AttemptKey]:
        statement = statements.LIST_EXPIRED_ARTIFACTS
        return await self._read(
            lambda snapshot: retention.list_expired(
                snapshot, statement, ended_before=ended_before, limit=limit
            )
        )

    async def mark_logs_deleted(self, keys: Iterable[AttemptKey]) -> None:
        await retention.mark_deleted(self._database, retention.MARK_LOGS, keys)

    async def mark_artifacts_deleted(self, keys: Iterable[AttemptKey]) -> None:
        await retention.mark_deleted(self._database, retention.MARK_ARTIFACTS, keys)

    async def is_logs_deleted(self, key: AttemptKey) -> bool:
        return await self._read(lambda snapshot: retention.is_logs_deleted(snapshot, key))

    async def list_expired_jobs(self, *, ended_before: float, limit: int) -> list[str]:
        return await self._read(
            lambda snapshot: retention.list_expired_jobs(snapshot, ended_before=ended_before, limit=limit)
        )

    async def delete_events(self, *, before: float, limit: int) -> int:
        return await events.delete_events(self._database, before=before, limit=limit)
