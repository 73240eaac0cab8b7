"""A busy installation's ledger, fast: many jobs of every state, a tenth of them running in a pool of some other host.

A thousand jobs go the whole way through the port; the rest are copies of their rows, which takes seconds where the way
itself takes minutes. A test counts every counter anew. Nobody owns the pool: what runs there stays as it is, as while
its own service is away.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from runyard.clock import SystemClock
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Claimed, ClaimRequest, Ledger
from runyard.model.attempt import UID_LENGTH
from runyard.model.job import Job, JobSpec, JobState, NewJob, Step
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, succeeded
from runyard.model.pool import Budget, Fence, PoolSettings
from runyard.model.queue import QueueSettings
from runyard.model.requirements import Isolation, Requirements
from runyard.model.verdict import Final, Verdict

POOL = "elsewhere"
QUEUES = ("builds", "nightly", "training")
TEAMS = ("search", "billing", "infra", "mobile")
TENANTS = 20
SEEDS = 1000
RUNNING, QUEUED, CANCELED = SEEDS // 10, SEEDS // 10, SEEDS // 20
COPY_AGE_S = 60.0
_FAILS_EACH = 10
_NEEDS = Requirements(labels={"gpu": "yes"})  # no pool of the service under test takes it
_COUNTERS = {
    "queues": ("queued", "starting", "running"),
    "tenants": ("queued", "running"),
    "shares": ("queued", "ready", "running"),
    "lanes": ("ready",),
    "fair": ("ready",),
    "pools": ("starting", "running"),
}


async def fill_busy_ledger(path: Path, *, jobs: int) -> None:
    """`jobs`, a multiple of SEEDS: a tenth of them run, a tenth wait, the others ended. `path` is not there yet."""
    ledger = create_ledger(f"sqlite://{path}", clock=SystemClock())
    await ledger.open()
    try:
        await _live(ledger, slots=RUNNING * jobs // SEEDS)
    finally:
        await ledger.close()
    _multiply(path, times=jobs // SEEDS)


# -- the jobs that went the whole way -----------------------------------------------------------------------------
async def _live(ledger: Ledger, *, slots: int) -> None:
    for queue in QUEUES:
        await ledger.put_queue(QueueSettings(name=queue))
    plenty = Budget(cpu_millis=10**9, memory_bytes=1 << 60)
    pool = PoolSettings(
        name=POOL,
        provider="local",
        slots=slots,
        budget=plenty,
        isolation=Isolation.CONTAINER,
        labels=_NEEDS.labels,
        host="another-host",
        description="a pool of another host",
    )
    await ledger.put_pool(pool)
    fence = await ledger.acquire_pool(POOL, owner="busy", lease_s=600.0)
    assert fence is not None, "nobody else can own the pool of a new ledger"
    ended = SEEDS - RUNNING - QUEUED - CANCELED
    for first in range(0, ended, RUNNING):
        await _submit(ledger, range(first, min(first + RUNNING, ended)))
        for number, claimed in enumerate(await _claim(ledger, fence, plenty)):
            await ledger.settle(fence, claimed.attempt.key, _outcome(number), decide=_final)
    await _submit(ledger, range(ended, ended + RUNNING))
    await _claim(ledger, fence, plenty)
    for job in await _submit(ledger, range(ended + RUNNING, ended + RUNNING + CANCELED)):
        await ledger.request_cancel(job.uid)
    await _submit(ledger, range(SEEDS - QUEUED, SEEDS))
    await ledger.release_pool(fence)


async def _submit(ledger: Ledger, numbers: range) -> list[Job]:
    new = [_new_job(number) for number in numbers]
    answers = await ledger.submit(new)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [answer.job for answer in answers if not isinstance(answer, Exception)]


def _new_job(number: int) -> NewJob:
    uid = secrets.token_hex(UID_LENGTH // 2)
    spec = JobSpec(
        steps=(Step(name="step-1", command=("true",)),),
        name=f"part {number}",
        queue=QUEUES[number % len(QUEUES)],
        tenant=f"tenant-{number % TENANTS}",
        labels={"team": TEAMS[number % len(TEAMS)]},
        requirements=_NEEDS,
    )
    return NewJob(uid=uid, id=f"job-{number:03}", spec=spec, spec_hash="busy")


async def _claim(ledger: Ledger, fence: Fence, budget: Budget) -> Sequence[Claimed]:
    """All that waits, running."""
    rooms = {item.class_key: RUNNING for item in await ledger.list_demand(fence)}
    claimed = await ledger.claim(
        ClaimRequest(fence=fence, free_slots=tuple(range(RUNNING)), rooms=rooms, budget=budget)
    )
    now = await ledger.now()
    for one in claimed:
        await ledger.record_phases(fence, one.attempt.key, {"running": now})
    return claimed


def _outcome(number: int) -> Outcome:
    if number % _FAILS_EACH:
        return succeeded()
    reason = Reason(code=ReasonCode.EXIT, message="exit code 3", step="step-1")
    return Outcome(kind=OutcomeKind.FAILED, exit_code=3, reason=reason)


def _final(job: Job, outcome: Outcome, now: float) -> Verdict:
    return Final(state=JobState(outcome.kind.value), reason=outcome.reason)


# -- their copies -------------------------------------------------------------------------------------------------
def _multiply(path: Path, *, times: int) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_function("copied_uid", 2, _copied_uid, deterministic=True)
        connection.execute("PRAGMA cache_size = -200000")
        connection.execute("BEGIN")
        [(events,)] = connection.execute("SELECT max(sequence) FROM events").fetchall()
        for table, changes in _changes(events).items():
            connection.execute(_copy(connection, table, changes, copies=times - 1))
        for table, columns in _COUNTERS.items():
            changed = ", ".join(f"{column} = {column} * {times}" for column in columns)
            connection.execute(f"UPDATE {table} SET {changed}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _changes(events: int) -> dict[str, dict[str, str]]:
    """What differs in the nth copy of a row, by table and column: each copy is a minute older than the one before."""
    uid, serial, age = "copied_uid(uid, n)", f"serial + n * {SEEDS}", f"n * {COPY_AGE_S}"

    def older(*columns: str) -> dict[str, str]:
        return {column: f"{column} - {age}" for column in columns}

    phases = f"(SELECT json_group_object(key, value - {age}) FROM json_each(phases))"
    return {
        "jobs": {"serial": serial, "uid": uid, "id": "id || '-' || n"}
        | older("submitted_at", "queued_at", "started_at", "ended_at"),
        "job_specs": {"serial": serial},
        "job_labels": {"serial": serial, "uid": uid} | older("submitted_at"),
        "attempts": {"uid": uid, "slot": f"slot + n * {RUNNING}", "phases": phases}
        | older("claimed_at", "started_at", "ended_at"),
        "events": {"sequence": f"sequence + n * {events}", "uid": uid, "job_id": "job_id || '-' || n"}
        | older("at"),
    }


def _copy(connection: sqlite3.Connection, table: str, changes: dict[str, str], *, copies: int) -> str:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changes.get(column, column) for column in columns)
    return (
        f"WITH RECURSIVE copies AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM copies WHERE n < {copies})"
        f" INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, copies"
    )


def _copied_uid(uid: str, number: int) -> str:
    return hashlib.md5(f"{uid}-{number}".encode(), usedforsecurity=False).hexdigest()[:UID_LENGTH]
