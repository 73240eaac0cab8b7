"""Rows to model values and back, the same for every dialect: a row is anything that answers `row["column"]`.

Nested values are JSON columns through msgspec, which knows frozen dataclasses and enums and ignores keys that a newer
release added.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec

from runyard.ledger.port import EndedCounts, Received
from runyard.ledger.statements import ENDED_MAX, RECEIVED_MAX
from runyard.model.attempt import Attempt, AttemptKey, AttemptState, Progress
from runyard.model.audit import AuditLine
from runyard.model.event import JobEvent
from runyard.model.history import HistoryRow, HistorySum
from runyard.model.job import Job, JobSpec, JobState
from runyard.model.machine import Binding, BindingState, Machine, MachineState
from runyard.model.operation import Operation, OperationKind
from runyard.model.outcome import Outcome, Reason
from runyard.model.pool import (
    Availability,
    AvailabilityKind,
    ClassAvailability,
    Pool,
    PoolHealth,
    PoolSettings,
    WaitCode,
)
from runyard.model.queue import Queue, QueueSettings, Tenant, TenantSettings
from runyard.model.requirements import Requirements, resource_seconds
from runyard.model.secret import StoredSecret
from runyard.model.token import Scope, Token, TokenKind
from runyard.model.waiting import TenantDepth, TenantShare

JOB_COLUMNS = """
    j.uid, j.id, s.spec, j.spec_hash, j.state, j.submitted_at, j.queued_at, j.submitted_by, j.retry_of, j.not_before,
    j.queue_deadline_at, j.cancel_requested_at, j.attempts, j.infrastructure_failures, j.failures, j.unseen_tries,
    j.started_at, j.ended_at, j.reason, j.outputs
"""


_OPERATION = "op-"


class Row(Protocol):
    def __getitem__(self, column: str, /) -> Any: ...


_spec = msgspec.json.Decoder(JobSpec)
_reason = msgspec.json.Decoder(Reason)
_outcome = msgspec.json.Decoder(Outcome)
_phases = msgspec.json.Decoder(dict[str, float])
_words = msgspec.json.Decoder(dict[str, str])
_progress = msgspec.json.Decoder(Progress)
_requirements = msgspec.json.Decoder(Requirements)
_pool_settings = msgspec.json.Decoder(PoolSettings)
_names = msgspec.json.Decoder(tuple[str, ...])
_document = msgspec.json.Decoder(dict[str, Any])


def to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def reason_to_json(reason: Reason | None) -> str | None:
    return None if reason is None else to_json(reason)


def phases_of(text: str) -> dict[str, float]:
    return _phases.decode(text)


def words_of(text: str) -> dict[str, str]:
    return _words.decode(text)


def progress_to_json(progress: Progress | None) -> str | None:
    return None if progress is None else to_json(progress)


def requirements_of(text: str) -> Requirements:
    return _requirements.decode(text)


def pool_settings_of(text: str) -> PoolSettings:
    return _pool_settings.decode(text)


def merge_phases(known: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
    """The first time of each phase counts."""
    return {**new, **known}


def job_of(row: Row) -> Job:
    return Job(
        uid=row["uid"],
        id=row["id"],
        spec=_spec.decode(row["spec"]),
        spec_hash=row["spec_hash"],
        state=JobState(row["state"]),
        submitted_at=row["submitted_at"],
        queued_at=row["queued_at"],
        submitted_by=row["submitted_by"],
        retry_of=row["retry_of"],
        not_before=row["not_before"],
        queue_deadline_at=row["queue_deadline_at"],
        cancel_requested_at=row["cancel_requested_at"],
        attempts=row["attempts"],
        infrastructure_failures=row["infrastructure_failures"],
        failures=row["failures"],
        unseen_tries=row["unseen_tries"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        reason=_reason_of(row["reason"]),
        outputs=_words.decode(row["outputs"]),
    )


def attempt_of(row: Row) -> Attempt:
    return Attempt(
        key=AttemptKey(row["uid"], row["number"]),
        pool=row["pool"],
        slot=row["slot"],
        epoch=row["epoch"],
        state=AttemptState(row["state"]),
        claimed_at=row["claimed_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        phases=phases_of(row["phases"]),
        outcome=None if row["outcome"] is None else _outcome.decode(row["outcome"]),
        charged=row["charged"],
        placement=words_of(row["placement"]),
        progress=None if row["progress"] is None else _progress.decode(row["progress"]),
    )


def machine_of(row: Row) -> Machine:
    """Needs the column `held` beside those of the table."""
    return Machine(
        name=row["name"],
        pool=row["pool"],
        state=MachineState(row["state"]),
        slots=row["slots"],
        epoch=row["epoch"],
        intended_at=row["intended_at"],
        since=row["since"],
        contact_at=row["contact_at"],
        fenced_at=row["fenced_at"],
        fence_reason=row["fence_reason"],
        drain_asked_at=row["drain_asked_at"],
        facts=words_of(row["facts"]),
        held=row["held"],
    )


def binding_of(row: Row) -> Binding:
    """From the attempt's row with the binding's, where there is one."""
    return Binding(
        key=AttemptKey(row["uid"], row["number"]),
        claimed_at=row["claimed_at"],
        state=BindingState(row["state"]),
        machine=row["machine"],
        taken_at=row["taken_at"],
        stop_grace_s=row["stop_grace_s"],
        is_unwanted=bool(row["is_unwanted"]),
        is_settled=row["attempt_state"] == AttemptState.ENDED,
        phases=phases_of(row["phases"]),
        outcome=None if row["outcome"] is None else _outcome.decode(row["outcome"]),
        outputs=words_of(row["outputs"]),
    )


def share_of(row: Row) -> TenantShare:
    return TenantShare(
        tenant=row["tenant"],
        weight=row["weight"],
        virtual_time=row["vtime"],
        queued=row["queued"],
        running=row["running"],
    )


def depth_of(row: Row) -> TenantDepth:
    return TenantDepth(queue=row["queue"], queued=row["queued"], running=row["running"])


def longest_waiting(of_each: Iterable[Sequence[Row]], limit: int) -> list[Row]:
    """The oldest of several tenants' oldest."""
    merged = heapq.merge(*of_each, key=lambda row: (row["submitted_at"], row["uid"]))
    return list(islice(merged, limit))


def received_since(row: Row, since: float) -> float:
    """From when on what was received is counted: from the oldest of the latest ends, where the bound was reached."""
    first_at: float = row["first_at"] if row["ended"] >= RECEIVED_MAX else since
    return first_at


def received_of(found: Sequence[Row], since: float) -> Received:
    by_share: dict[tuple[str, str], float] = {}
    for row in found:
        shape = Requirements(cpu_millis=row["cpu_millis"], memory_bytes=row["memory_bytes"])
        key = (row["queue"], row["tenant"])
        by_share[key] = by_share.get(key, 0.0) + resource_seconds(shape, row["wall_s"])
    return Received(by_share, since)


def ended_counts_of(found: Sequence[Row], since: float) -> EndedCounts:
    """Where the bound was reached, they reach back only to the oldest that was counted."""
    by_queue = {row["queue"]: row["ended"] for row in found}
    is_cut = sum(by_queue.values()) >= ENDED_MAX
    return EndedCounts(by_queue, min(row["first_at"] for row in found) if is_cut else since)


def event_of(row: Row) -> JobEvent:
    return JobEvent(
        sequence=row["sequence"],
        at=row["at"],
        tenant=row["tenant"],
        queue=row["queue"],
        job_id=row["job_id"],
        uid=row["uid"],
        state=row["state"],
        attempt=row["attempt"],
        reason=_reason_of(row["reason"]),
    )


def queue_of(row: Row) -> Queue:
    """Needs the columns `oldest_queued_at` and `has_eligible` beside those of the table."""
    settings = QueueSettings(
        name=row["name"],
        weight=row["weight"],
        running_max=row["running_max"],
        queued_max=row["queued_max"],
        tenant_running_max=row["tenant_running_max"],
        defaults=_document.decode(row["defaults"]),
        is_paused=bool(row["is_paused"]),
        is_configured=bool(row["is_configured"]),
    )
    return Queue(
        settings=settings,
        queued=row["queued"],
        starting=row["starting"],
        running=row["running"],
        oldest_queued_at=row["oldest_queued_at"],
        last_claimed_at=row["last_claimed_at"],
        has_eligible=row["has_eligible"] is not None,
    )


def tenant_of(row: Row) -> Tenant:
    settings = TenantSettings(
        name=row["name"],
        weight=row["weight"],
        running_max=row["running_max"],
        queued_max=row["queued_max"],
        is_configured=bool(row["is_configured"]),
    )
    return Tenant(settings=settings, queued=row["queued"], running=row["running"])


def pool_of(row: Row, now: float) -> Pool:
    """Whose lease has run out has no owner, whatever the row says: nobody wrote that it did."""
    is_owned = row["owner"] is not None and row["lease_until"] > now
    return Pool(
        settings=pool_settings_of(row["settings"]),
        epoch=row["epoch"],
        owner=row["owner"] if is_owned else None,
        lease_until=row["lease_until"],
        is_paused=bool(row["is_paused"]),
        health=PoolHealth(row["health"]) if is_owned else PoolHealth.UNOWNED,
        health_message=row["health_message"] if is_owned else "",
        starting=row["starting"],
        running=row["running"],
    )


def class_availability_of(row: Row) -> ClassAvailability:
    availability = Availability(
        kind=AvailabilityKind(row["kind"]),
        room=row["room"],
        code=None if row["code"] is None else WaitCode(row["code"]),
        why=row["why"],
        eta_s=row["eta_s"],
    )
    return ClassAvailability(
        pool=row["pool"],
        class_key=row["class_key"],
        availability=availability,
        since=row["since"],
        stated_at=row["stated_at"],
    )


def operation_of(row: Row) -> Operation:
    return Operation(
        id=f"{_OPERATION}{row['number']}",
        pool=row["pool"],
        kind=OperationKind(row["kind"]),
        arguments=_document.decode(row["arguments"]),
        requested_at=row["requested_at"],
        finished_at=row["finished_at"],
        result=None if row["result"] is None else _document.decode(row["result"]),
    )


def operation_number(operation_id: str) -> int:
    """-1, which no row has, where the id is not of our form."""
    digits = operation_id.removeprefix(_OPERATION)
    is_ours = (
        operation_id.startswith(_OPERATION) and digits.isascii() and digits.isdecimal() and len(digits) < 19
    )
    return int(digits) if is_ours else -1


def token_of(row: Row) -> Token:
    return Token(
        id=row["id"],
        name=row["name"],
        secret_hash=row["secret_hash"],
        scope=Scope(row["scope"]),
        tenants=None if row["tenants"] is None else _names.decode(row["tenants"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        kind=TokenKind(row["kind"]),
        parent=row["parent"],
    )


def audit_columns(line: AuditLine) -> dict[str, Any]:
    return {
        "at": line.at,
        "actor": line.actor,
        "actor_id": line.actor_id,
        "origin": line.origin,
        "action": line.action,
        "subject": line.subject,
        "details": to_json(line.details),
    }


def secret_columns(secret: StoredSecret) -> dict[str, Any]:
    return {
        "tenant": secret.tenant,
        "name": secret.name,
        "version": secret.version,
        "key_id": secret.key_id,
        "sealed": secret.sealed,
        "queues": None if secret.queues is None else to_json(secret.queues),
        "created_at": secret.created_at,
        "changed_at": secret.changed_at,
        "changed_by": secret.changed_by,
    }


def secret_of(row: Row) -> StoredSecret:
    return StoredSecret(
        tenant=row["tenant"],
        name=row["name"],
        version=row["version"],
        key_id=row["key_id"],
        sealed=row["sealed"],
        queues=None if row["queues"] is None else _names.decode(row["queues"]),
        created_at=row["created_at"],
        changed_at=row["changed_at"],
        changed_by=row["changed_by"],
        last_used_at=row["last_used_at"],
        last_used_by=row["last_used_by"],
    )


def history_columns(row: HistoryRow) -> dict[str, Any]:
    return {
        "subject": row.subject.value,
        "name": row.name,
        "bucket": row.bucket,
        "figure": row.figure,
        "writer": row.writer,
        "amount": row.amount,
        "seconds": row.seconds,
    }


def history_sum_of(row: Row) -> HistorySum:
    return HistorySum(
        at=row["at"],
        figure=row["figure"],
        highest=row["highest"],
        amount=row["amount"],
        seconds=row["seconds"],
    )


def newest_or(sequence: int | None) -> int:
    """A bound above every sequence where none is given."""
    return (1 << 62) if sequence is None else sequence


def audit_line_of(row: Row) -> AuditLine:
    return AuditLine(
        sequence=row["sequence"],
        at=row["at"],
        actor=row["actor"],
        actor_id=row["actor_id"],
        origin=row["origin"],
        action=row["action"],
        subject=row["subject"],
        details=_document.decode(row["details"]),
    )


def _reason_of(text: str | None) -> Reason | None:
    return None if text is None else _reason.decode(text)
