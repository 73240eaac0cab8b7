"""From the ledger's values to the documents of the wire. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel
from starlette.responses import Response

from runyard.api.job_specs import document_of
from runyard.model.attempt import Attempt, AttemptKey, Progress
from runyard.model.audit import AuditLine
from runyard.model.event import JobEvent
from runyard.model.job import Job
from runyard.model.machine import Machine
from runyard.model.operation import Operation
from runyard.model.outcome import Reason
from runyard.model.pool import Pool
from runyard.model.queue import Queue, Tenant
from runyard.model.secret import StoredSecret
from runyard.model.token import Token
from runyard.wire.answers import (
    AttemptAnswer,
    AuditAnswer,
    EventAnswer,
    JobAnswer,
    JobPage,
    MachineAnswer,
    OperationAnswer,
    PoolAnswer,
    ProgressAnswer,
    QueueAnswer,
    ReasonAnswer,
    SecretAnswer,
    TenantAnswer,
    TokenAnswer,
    UsageAnswer,
)

_NOT_IN_LISTINGS = {"jobs": {"__all__": {"effective", "attempts", "warnings"}}}


def json_response(answer: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Straight to bytes: the framework would first make a tree of Python values of it."""
    return _json(answer.model_dump_json(), status, headers)


def listing_response(page: JobPage) -> Response:
    """What a row does not know is left out: an empty `attempts` would say that there were none."""
    return _json(page.model_dump_json(exclude=_NOT_IN_LISTINGS))


def _json(text: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(text.encode(), status, headers, media_type="application/json")


def time_of(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def reason_answer(reason: Reason | None) -> ReasonAnswer | None:
    if reason is None:
        return None
    return ReasonAnswer(code=reason.code.value, message=reason.message, step=reason.step)


def job_answer(job: Job, attempts: Sequence[Attempt], warnings: Sequence[str] = ()) -> JobAnswer:
    """All of it."""
    latest = attempts[-1].outcome if attempts else None
    return job_row(job, latest.exit_code if latest else None).model_copy(
        update={
            "effective": document_of(job.spec, job_id=job.id),
            "attempts": [attempt_answer(job.id, attempt) for attempt in attempts],
            "warnings": list(warnings),
        }
    )


def job_row(job: Job, exit_code: int | None) -> JobAnswer:
    """As listings have it. `exit_code` is that of the newest attempt."""
    return JobAnswer(
        id=job.id,
        uid=job.uid,
        name=job.spec.name,
        tenant=job.tenant,
        queue=job.queue,
        state=job.state.value,
        priority=job.spec.priority,
        labels=dict(job.spec.labels),
        attempt_count=job.attempts,
        exit_code=exit_code if job.state.is_final else None,
        reason=reason_answer(job.reason),
        outputs=dict(job.outputs),
        retry_of=job.retry_of,
        submitted_at=datetime.fromtimestamp(job.submitted_at, UTC),
        submitted_by=job.submitted_by,
        queued_at=datetime.fromtimestamp(job.queued_at, UTC),
        not_before=time_of(job.not_before),
        started_at=time_of(job.started_at),
        ended_at=time_of(job.ended_at),
    )


def attempt_answer(job_id: str, attempt: Attempt) -> AttemptAnswer:
    outcome = attempt.outcome
    usage = outcome.usage if outcome else None
    return AttemptAnswer(
        name=attempt_name(job_id, attempt.key),
        number=attempt.key.number,
        pool=attempt.pool,
        slot=attempt.slot,
        state=attempt.state.value,
        claimed_at=datetime.fromtimestamp(attempt.claimed_at, UTC),
        started_at=time_of(attempt.started_at),
        ended_at=time_of(attempt.ended_at),
        phases={name: datetime.fromtimestamp(at, UTC) for name, at in attempt.phases.items()},
        exit_code=outcome.exit_code if outcome else None,
        signal=outcome.signal if outcome else None,
        outcome=outcome.kind.value if outcome else None,
        reason=reason_answer(outcome.reason) if outcome else None,
        usage=UsageAnswer(wall_s=usage.wall_s, cpu_s=usage.cpu_s, memory_bytes_peak=usage.memory_bytes_peak)
        if usage
        else None,
        placement=dict(attempt.placement),
        progress=progress_answer(attempt.progress),
    )


def progress_answer(progress: Progress | None) -> ProgressAnswer | None:
    if progress is None:
        return None
    return ProgressAnswer(
        text=progress.text,
        at=datetime.fromtimestamp(progress.at, UTC),
        fraction=progress.fraction,
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
    )


def attempt_name(job_id: str, key: AttemptKey) -> str:
    return f"{job_id}.{key.number}"


def queue_answer(queue: Queue) -> QueueAnswer:
    settings = queue.settings
    return QueueAnswer(
        name=settings.name,
        weight=settings.weight,
        running_max=settings.running_max,
        queued_max=settings.queued_max,
        tenant_running_max=settings.tenant_running_max,
        defaults=dict(settings.defaults),
        paused=settings.is_paused,
        configured=settings.is_configured,
        queued=queue.queued,
        starting=queue.starting,
        running=queue.running,
        oldest_queued_at=time_of(queue.oldest_queued_at),
    )


def tenant_answer(tenant: Tenant) -> TenantAnswer:
    settings = tenant.settings
    return TenantAnswer(
        name=settings.name,
        weight=settings.weight,
        running_max=settings.running_max,
        queued_max=settings.queued_max,
        configured=settings.is_configured,
        queued=tenant.queued,
        running=tenant.running,
    )


def pool_answer(pool: Pool) -> PoolAnswer:
    settings = pool.settings
    return PoolAnswer(
        name=settings.name,
        provider=settings.provider,
        isolation=settings.isolation.word,
        description=settings.description,
        queues=list(settings.queues),
        labels=dict(settings.labels),
        slots=settings.slots,
        cpu=settings.budget.cpu_millis / 1000,
        memory=settings.budget.memory_bytes,
        disk=settings.budget.disk_bytes,
        running=pool.running,
        starting=pool.starting,
        idle=max(0, settings.slots - pool.running - pool.starting),
        paused=pool.is_paused,
        health=pool.health.value,
        health_message=pool.health_message,
        owner=pool.owner,
        epoch=pool.epoch,
        lease_until=time_of(pool.lease_until),
    )


def machine_answer(machine: Machine) -> MachineAnswer:
    return MachineAnswer(
        name=machine.name,
        pool=machine.pool,
        state=machine.state.value,
        slots=machine.slots,
        held=machine.held,
        since=time_of(machine.since),
        contact_at=time_of(machine.contact_at),
        fenced_at=time_of(machine.fenced_at),
        drain_asked_at=time_of(machine.drain_asked_at),
        facts=dict(machine.facts),
    )


def operation_answer(operation: Operation) -> OperationAnswer:
    return OperationAnswer(
        id=operation.id,
        pool=operation.pool,
        kind=operation.kind.value,
        requested_at=datetime.fromtimestamp(operation.requested_at, UTC),
        finished_at=time_of(operation.finished_at),
        result=None if operation.result is None else dict(operation.result),
    )


def token_answer(token: Token, secret: str | None = None) -> TokenAnswer:
    return TokenAnswer(
        id=token.id,
        name=token.name,
        scope=token.scope.value,
        kind=token.kind.value,
        tenants=None if token.tenants is None else list(token.tenants),
        created_at=datetime.fromtimestamp(token.created_at, UTC),
        expires_at=time_of(token.expires_at),
        token=secret,
    )


def secret_answer(secret: StoredSecret, *, is_readable: bool) -> SecretAnswer:
    return SecretAnswer(
        name=secret.name,
        tenant=secret.tenant,
        queues=None if secret.queues is None else list(secret.queues),
        created_at=datetime.fromtimestamp(secret.created_at, UTC),
        changed_at=datetime.fromtimestamp(secret.changed_at, UTC),
        changed_by=secret.changed_by,
        last_used_at=time_of(secret.last_used_at),
        last_used_by=secret.last_used_by,
        key_id=secret.key_id,
        readable=is_readable,
    )


def audit_answer(line: AuditLine) -> AuditAnswer:
    return AuditAnswer(
        sequence=line.sequence,
        at=datetime.fromtimestamp(line.at, UTC),
        actor=line.actor,
        actor_id=line.actor_id,
        origin=line.origin,
        action=line.action,
        subject=line.subject,
        details=dict(line.details),
    )


def event_answer(event: JobEvent) -> EventAnswer:
    return EventAnswer.model_validate(
        {
            "sequence": event.sequence,
            "at": datetime.fromtimestamp(event.at, UTC),
            "tenant": event.tenant,
            "queue": event.queue,
            "job": event.job_id,
            "uid": event.uid,
            "state": event.state,
            "attempt": event.attempt,
            "reason": reason_answer(event.reason),
        }
    )
