"""Jobs as such: into the ledger, out of it, found in it, canceled by their users."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runyard.ledger import refusals, rows
from runyard.ledger.port import Submitted
from runyard.ledger.sqlite import fairness
from runyard.ledger.sqlite.events import add_event
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.attempt import Attempt, AttemptKey
from runyard.model.errors import NotFound, TooMany
from runyard.model.job import Job, JobState, NewJob
from runyard.model.outcome import Reason, ReasonCode
from runyard.model.requirements import Requirements, resource_seconds

DEFAULT_WALL_S = 10.0  # what an attempt of a class never seen is taken to need

_JOB = f"SELECT {rows.JOB_COLUMNS} FROM jobs j JOIN job_specs s ON s.serial = j.serial"


# -- submit -------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Gate:
    """How much more a queue or tenant takes, counted on while a batch goes in."""

    kind: str
    name: str
    queued: int
    queued_max: int | None

    def check(self) -> None:
        if self.queued_max is not None and self.queued >= self.queued_max:
            raise refusals.is_full(self.kind, self.name, queued=self.queued, queued_max=self.queued_max)


class _Submission:
    """One batch: what it looked up, and the counts that are written once at its end."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._gates: dict[tuple[str, str], _Gate] = {}
        self._classes: dict[str, str] = {}
        self._ready: Counter[tuple[str, str, str]] = Counter()

    def add(self, new: NewJob) -> Submitted | Exception:
        spec = new.spec
        known = find_job(self._tx, spec.tenant, new.id)
        if known is not None:
            return _same_again(known, new)
        try:
            gates = (self._queue_gate(spec.queue), self._tenant_gate(spec.tenant))
            for gate in gates:
                gate.check()
        except (NotFound, TooMany) as error:
            return error
        for gate in gates:
            gate.queued += 1
        class_key = self._ensure_class(spec.requirements)
        self._ready[spec.queue, class_key, spec.tenant] += 1
        return Submitted(job=_insert_job(self._tx, new, class_key), is_new=True)

    def finish(self) -> None:
        for (queue, class_key, tenant), count in self._ready.items():
            fairness.add_queued(self._tx, queue, tenant, count)
            fairness.become_ready(self._tx, queue, class_key, tenant, count=count)

    def _queue_gate(self, queue: str) -> _Gate:
        gate = self._gates.get(("queue", queue))
        if gate is None:
            row = self._tx.row("SELECT queued, queued_max FROM queues WHERE name = :queue", queue=queue)
            if row is None:
                raise refusals.no_queue_for(queue)
            gate = self._gates["queue", queue] = _Gate("queue", queue, row["queued"], row["queued_max"])
        return gate

    def _tenant_gate(self, tenant: str) -> _Gate:
        gate = self._gates.get(("tenant", tenant))
        if gate is None:
            self._tx.execute(
                "INSERT INTO tenants (name, weight, is_configured) VALUES (:tenant, 1.0, 0)"
                " ON CONFLICT (name) DO NOTHING",
                tenant=tenant,
            )
            row = self._tx.one("SELECT queued, queued_max FROM tenants WHERE name = :tenant", tenant=tenant)
            gate = self._gates["tenant", tenant] = _Gate("tenant", tenant, row["queued"], row["queued_max"])
        return gate

    def _ensure_class(self, requirements: Requirements) -> str:
        text = rows.to_json(requirements)
        class_key = self._classes.get(text)
        if class_key is None:
            class_key = self._classes[text] = requirements.class_key()
            self._tx.execute(
                "INSERT INTO classes (class_key, requirements, cpu_millis, memory_bytes, disk_bytes, estimate)"
                " VALUES (:class_key, :requirements, :cpu_millis, :memory_bytes, :disk_bytes, :estimate)"
                " ON CONFLICT (class_key) DO NOTHING",
                class_key=class_key,
                requirements=text,
                cpu_millis=requirements.cpu_millis,
                memory_bytes=requirements.memory_bytes,
                disk_bytes=requirements.disk_bytes,
                estimate=resource_seconds(requirements, DEFAULT_WALL_S),
            )
        return class_key


def submit(tx: Transaction, jobs: Sequence[NewJob]) -> list[Submitted | Exception]:
    submission = _Submission(tx)
    answers = [submission.add(new) for new in jobs]
    submission.finish()
    return answers


def _same_again(known: Job, new: NewJob) -> Submitted | Exception:
    if known.spec_hash == new.spec_hash:
        return Submitted(job=known, is_new=False)
    return refusals.same_id(new)


def _insert_job(tx: Transaction, new: NewJob, class_key: str) -> Job:
    spec, now = new.spec, tx.now
    deadline = None if spec.limits.queue_s is None else now + spec.limits.queue_s
    serial = tx.insert(
        "INSERT INTO jobs (uid, tenant, id, name, queue, class_key, priority, state, is_ready, spec_hash,"
        " submitted_by, retry_of, submitted_at, queued_at, queue_deadline_at)"
        " VALUES (:uid, :tenant, :id, :name, :queue, :class_key, :priority, 'queued', 1, :spec_hash,"
        " :submitted_by, :retry_of, :now, :now, :deadline)",
        uid=new.uid,
        tenant=spec.tenant,
        id=new.id,
        name=spec.name,
        queue=spec.queue,
        class_key=class_key,
        priority=spec.priority,
        spec_hash=new.spec_hash,
        submitted_by=new.submitted_by,
        retry_of=new.retry_of,
        now=now,
        deadline=deadline,
    )
    tx.execute(
        "INSERT INTO job_specs (serial, spec) VALUES (:serial, :spec)", serial=serial, spec=rows.to_json(spec)
    )
    for label, value in spec.labels.items():
        tx.execute(
            "INSERT INTO job_labels (label, value, submitted_at, uid, serial)"
            " VALUES (:label, :value, :now, :uid, :serial)",
            label=label,
            value=value,
            now=now,
            uid=new.uid,
            serial=serial,
        )
    identity = {"tenant": spec.tenant, "queue": spec.queue, "id": new.id, "uid": new.uid}
    add_event(tx, identity, JobState.QUEUED)
    return Job(
        uid=new.uid,
        id=new.id,
        spec=spec,
        spec_hash=new.spec_hash,
        state=JobState.QUEUED,
        submitted_at=now,
        queued_at=now,
        submitted_by=new.submitted_by,
        retry_of=new.retry_of,
        queue_deadline_at=deadline,
    )


# -- find ---------------------------------------------------------------------------------------------------------
def find_job(tx: Transaction, tenant: str, job_id: str) -> Job | None:
    row = tx.row(f"{_JOB} WHERE j.tenant = :tenant AND j.id = :id", tenant=tenant, id=job_id)
    return None if row is None else rows.job_of(row)


def get_job(tx: Transaction, uid: str) -> Job | None:
    row = tx.row(f"{_JOB} WHERE j.uid = :uid", uid=uid)
    return None if row is None else rows.job_of(row)


def get_job_by_serial(tx: Transaction, serial: int) -> Job:
    return rows.job_of(tx.one(f"{_JOB} WHERE j.serial = :serial", serial=serial))


def list_attempts(tx: Transaction, uid: str) -> list[Attempt]:
    found = tx.rows("SELECT * FROM attempts WHERE uid = :uid ORDER BY number", uid=uid)
    return [rows.attempt_of(row) for row in found]


def get_attempt(tx: Transaction, key: AttemptKey) -> Attempt | None:
    row = tx.row(
        "SELECT * FROM attempts WHERE uid = :uid AND number = :number", uid=key.uid, number=key.number
    )
    return None if row is None else rows.attempt_of(row)


# -- end ----------------------------------------------------------------------------------------------------------
def request_cancel(tx: Transaction, uid: str) -> Job:
    row = _need_row(tx, uid)
    state = JobState(row["state"])
    if state == JobState.QUEUED:
        end_queued(
            tx,
            row,
            JobState.CANCELED,
            Reason(code=ReasonCode.CANCELED, message="canceled while it was queued"),
        )
    elif state in (JobState.STARTING, JobState.RUNNING):
        tx.execute(
            "UPDATE jobs SET state = 'canceling', cancel_requested_at = :now WHERE serial = :serial",
            now=tx.now,
            serial=row["serial"],
        )
        add_event(tx, row, JobState.CANCELING, attempt=row["attempts"])
        tx.fire(f"pool:{row['pool']}")
    return get_job_by_serial(tx, row["serial"])


def end_queued(tx: Transaction, row: sqlite3.Row, state: JobState, reason: Reason) -> None:
    """Ends a job that no pool holds."""
    tx.execute(
        "UPDATE jobs SET state = :state, is_ready = 0, not_before = NULL, ended_at = :now, reason = :reason,"
        " cancel_requested_at = CASE WHEN :state = 'canceled' THEN :now ELSE cancel_requested_at END"
        " WHERE serial = :serial",
        state=state.value,
        now=tx.now,
        reason=rows.reason_to_json(reason),
        serial=row["serial"],
    )
    fairness.add_queued(tx, row["queue"], row["tenant"], -1)
    if row["is_ready"]:
        fairness.leave_ready(tx, row["queue"], row["class_key"], row["tenant"])
    add_event(tx, row, state, attempt=row["attempts"], reason=reason)


def delete_job(tx: Transaction, uid: str) -> None:
    row = _need_row(tx, uid)
    if not JobState(row["state"]).is_final:
        raise refusals.not_final(row["id"], row["state"])
    tx.execute("DELETE FROM attempts WHERE uid = :uid", uid=uid)
    tx.execute("DELETE FROM bindings WHERE uid = :uid", uid=uid)
    for table in ("job_labels", "job_specs", "jobs"):
        tx.execute(f"DELETE FROM {table} WHERE serial = :serial", serial=row["serial"])
    tx.fire(f"job:{uid}")


def _need_row(tx: Transaction, uid: str) -> sqlite3.Row:
    row = tx.row("SELECT * FROM jobs WHERE uid = :uid", uid=uid)
    if row is None:
        raise refusals.no_job(uid)
    return row
