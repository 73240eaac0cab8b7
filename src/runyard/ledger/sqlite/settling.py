"""From claimed to settled: what an attempt reports while it runs, and the one transaction that accepts its end."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from runyard.ledger import refusals, rows
from runyard.ledger.port import Claimed
from runyard.ledger.sqlite import fairness, jobs, pools
from runyard.ledger.sqlite.events import add_event
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.attempt import AttemptKey, AttemptState, Progress, merge_placement
from runyard.model.job import Job, JobState
from runyard.model.outcome import Outcome
from runyard.model.pool import Fence
from runyard.model.requirements import resource_seconds
from runyard.model.verdict import Decide, Final, Requeue, RetryCost

ESTIMATE_WEIGHT = 0.2  # of the newest attempt in its class's moving average
RUNNING_PHASE = "running"

_COUNTED_IN = {
    RetryCost.INFRASTRUCTURE: "infrastructure_failures",
    RetryCost.FAILURE: "failures",
    RetryCost.UNSEEN: "unseen_tries",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """An attempt's end as its owner reports it."""

    outcome: Outcome
    decide: Decide
    phases: Mapping[str, float]
    outputs: Mapping[str, str]
    placement: Mapping[str, str]


def list_unfinished(tx: Transaction, fence: Fence) -> list[Claimed]:
    pools.need_fenced(tx, fence)
    found = tx.rows(
        "SELECT * FROM attempts WHERE pool = :pool AND state <> 'ended' ORDER BY claimed_at, uid",
        pool=fence.pool,
    )
    claimed = []
    for row in found:
        job = jobs.get_job(tx, row["uid"])
        assert job is not None, "an unfinished attempt's job cannot be deleted"
        claimed.append(Claimed(job, rows.attempt_of(row)))
    return claimed


def record_phases(tx: Transaction, fence: Fence, key: AttemptKey, phases: Mapping[str, float]) -> None:
    attempt = _fenced_attempt(tx, fence, key)
    if attempt is None or attempt["state"] == AttemptState.ENDED:
        return
    merged = rows.merge_phases(rows.phases_of(attempt["phases"]), phases)
    tx.execute(
        "UPDATE attempts SET phases = :phases WHERE uid = :uid AND number = :number",
        phases=rows.to_json(merged),
        uid=key.uid,
        number=key.number,
    )
    if attempt["state"] == AttemptState.STARTING and RUNNING_PHASE in merged:
        _start_running(tx, fence, key, started_at=merged[RUNNING_PHASE])
    tx.fire(f"job:{key.uid}")


def record_status(
    tx: Transaction,
    fence: Fence,
    key: AttemptKey,
    *,
    placement: Mapping[str, str],
    progress: Progress | None,
) -> None:
    attempt = _fenced_attempt(tx, fence, key)
    if attempt is None or attempt["state"] == AttemptState.ENDED:
        return
    tx.execute(
        "UPDATE attempts SET placement = :placement, progress = CASE WHEN state = 'starting' THEN :progress END"
        " WHERE uid = :uid AND number = :number",
        placement=rows.to_json(merge_placement(rows.words_of(attempt["placement"]), placement)),
        progress=rows.progress_to_json(progress),
        uid=key.uid,
        number=key.number,
    )
    tx.fire(f"job:{key.uid}")


def _start_running(tx: Transaction, fence: Fence, key: AttemptKey, *, started_at: float) -> None:
    """The attempt runs, whatever was asked meanwhile; its job says so too unless it is being canceled."""
    tx.execute(
        "UPDATE attempts SET state = 'running', started_at = :at, progress = NULL"
        " WHERE uid = :uid AND number = :number",
        at=started_at,
        uid=key.uid,
        number=key.number,
    )
    tx.execute(
        "UPDATE jobs SET started_at = :at, state = CASE WHEN state = 'starting' THEN 'running' ELSE state END"
        " WHERE uid = :uid",
        at=started_at,
        uid=key.uid,
    )
    job = tx.one("SELECT tenant, queue, id, uid, state FROM jobs WHERE uid = :uid", uid=key.uid)
    fairness.starting_to_running(tx, fence.pool, job["queue"])
    if job["state"] == JobState.RUNNING:
        add_event(tx, job, JobState.RUNNING, attempt=key.number)


def settle(tx: Transaction, fence: Fence, key: AttemptKey, ending: Ending) -> Job | None:
    attempt = _fenced_attempt(tx, fence, key)
    job = jobs.get_job(tx, key.uid)
    if job is None or attempt is None or attempt["state"] == AttemptState.ENDED:
        return job
    verdict = ending.decide(job, ending.outcome, tx.now)
    row = tx.one("SELECT * FROM jobs WHERE uid = :uid", uid=key.uid)
    _end_attempt(tx, attempt, ending)
    was_running = attempt["state"] == AttemptState.RUNNING
    fairness.release(tx, fence.pool, job.queue, job.tenant, was_running=was_running)
    _correct_charge(tx, attempt, row, job=job, outcome=ending.outcome)
    match verdict:
        case Final():
            _finish(tx, row, verdict, ending.outputs)
        case Requeue():
            _requeue(tx, row, verdict)
    return jobs.get_job(tx, key.uid)


def _end_attempt(tx: Transaction, attempt: sqlite3.Row, ending: Ending) -> None:
    phases = rows.merge_phases(rows.phases_of(attempt["phases"]), ending.phases)
    tx.execute(
        "UPDATE attempts SET state = 'ended', ended_at = :now, started_at = coalesce(started_at, :started_at),"
        " phases = :phases, outcome = :outcome, placement = :placement, progress = NULL"
        " WHERE uid = :uid AND number = :number",
        now=tx.now,
        started_at=phases.get(RUNNING_PHASE),
        phases=rows.to_json(phases),
        outcome=rows.to_json(ending.outcome),
        placement=rows.to_json(merge_placement(rows.words_of(attempt["placement"]), ending.placement)),
        uid=attempt["uid"],
        number=attempt["number"],
    )


def _correct_charge(
    tx: Transaction, attempt: sqlite3.Row, row: sqlite3.Row, *, job: Job, outcome: Outcome
) -> None:
    """Once per attempt (I12): from the estimate to what was used. What was never seen used nothing and teaches nothing
    about its class."""
    used = resource_seconds(job.spec.requirements, outcome.usage.wall_s) if outcome.was_seen else 0.0
    difference = used - attempt["charged"]
    fairness.charge(tx, job.queue, job.tenant, cost=difference)
    fairness.correct_queue(tx, attempt["pool"], job.queue, cost=difference)
    if outcome.was_seen:
        # The first sample replaces the guess, the second weighs a half, and so on down to ESTIMATE_WEIGHT.
        tx.execute(
            "UPDATE classes SET samples = samples + 1, estimate = estimate + (:used - estimate)"
            " * CASE WHEN 1.0 / (samples + 1) > :weight THEN 1.0 / (samples + 1) ELSE :weight END"
            " WHERE class_key = :class_key",
            used=used,
            weight=ESTIMATE_WEIGHT,
            class_key=row["class_key"],
        )


def _finish(tx: Transaction, row: sqlite3.Row, verdict: Final, outputs: Mapping[str, str]) -> None:
    tx.execute(
        "UPDATE jobs SET state = :state, ended_at = :now, reason = :reason, outputs = :outputs,"
        " started_at = coalesce(started_at, (SELECT a.started_at FROM attempts a"
        " WHERE a.uid = jobs.uid AND a.number = jobs.attempts)) WHERE serial = :serial",
        state=verdict.state.value,
        now=tx.now,
        reason=rows.reason_to_json(verdict.reason),
        outputs=rows.to_json(outputs),
        serial=row["serial"],
    )
    add_event(tx, row, verdict.state, attempt=row["attempts"], reason=verdict.reason)


def _requeue(tx: Transaction, row: sqlite3.Row, verdict: Requeue) -> None:
    is_ready = verdict.not_before is None or verdict.not_before <= tx.now
    counter = _COUNTED_IN[verdict.cost]
    tx.execute(
        f"UPDATE jobs SET state = 'queued', is_ready = :is_ready, not_before = :not_before, started_at = NULL,"
        f" queued_at = CASE WHEN :keeps_place THEN queued_at ELSE :now END, reason = :reason,"
        f" {counter} = {counter} + 1 WHERE serial = :serial",
        is_ready=is_ready,
        not_before=verdict.not_before,
        keeps_place=verdict.keeps_place,
        now=tx.now,
        reason=rows.reason_to_json(verdict.reason),
        serial=row["serial"],
    )
    fairness.add_queued(tx, row["queue"], row["tenant"], 1)
    if is_ready:
        fairness.become_ready(tx, row["queue"], row["class_key"], row["tenant"])
    add_event(tx, row, JobState.QUEUED, attempt=row["attempts"], reason=verdict.reason)


def _fenced_attempt(tx: Transaction, fence: Fence, key: AttemptKey) -> sqlite3.Row | None:
    pools.need_fenced(tx, fence)
    attempt = tx.row(
        "SELECT * FROM attempts WHERE uid = :uid AND number = :number", uid=key.uid, number=key.number
    )
    if attempt is not None and attempt["pool"] != fence.pool:
        raise refusals.not_yours(fence, key, attempt["pool"])
    return attempt
