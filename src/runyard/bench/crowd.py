"""A crowd of jobs, fast: the rows that some jobs left by submits and attempts, copied within the database.

A million submits take minutes, the copies half a minute. A test holds the copied rows to those of as many submits.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from runyard.testing.postgres_server import PostgresServer

AGE_STEP_S = 0.001
_KEPT = (
    "tenant, name, queue, class_key, priority, state, is_ready, spec_hash, submitted_by, retry_of, pool, attempts,"
    " failures, reason, outputs"
)
_MOMENTS = ("submitted_at", "queued_at", "cancel_requested_at", "started_at", "ended_at")
_ATTEMPT_KEPT = "pool, slot, epoch, state, phases, outcome, charged, placement"
_COUNTERS = (
    ("queues", "queued"),
    ("tenants", "queued"),
    ("shares", "queued"),
    ("shares", "ready"),
    ("lanes", "ready"),
    ("fair", "ready"),
)


@dataclass(frozen=True, slots=True)
class _Dialect:
    """`copies` yields n from 1; `explicit` lets a serial be given; `last` puts right what counts up by itself."""

    copies: str
    explicit: str
    last: tuple[str, ...]


def _sqlite(copies: int) -> _Dialect:
    counted = f"SELECT 1 AS n UNION ALL SELECT n + 1 FROM copies WHERE n < {copies}"
    return _Dialect(copies=counted, explicit="", last=())


def _postgres(copies: int) -> _Dialect:
    return _Dialect(
        copies=f"SELECT generate_series(1, {copies}) AS n",
        explicit="OVERRIDING SYSTEM VALUE",
        last=(
            f"UPDATE event_head SET sequence = sequence * {copies + 1}",
            "SELECT setval(pg_get_serial_sequence('jobs', 'serial'), (SELECT max(serial) FROM jobs))",
        ),
    )


def multiply_in_sqlite(path: Path, *, seeds: int, times: int) -> None:
    """In a ledger whose only jobs are `seeds` queued or final ones, with serials from 1, and that nobody has open."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_function("md5", 1, _md5, deterministic=True)
        connection.execute("PRAGMA cache_size = -200000")
        connection.execute("BEGIN")
        for statement in _statements(_sqlite(times - 1), seeds=seeds, times=times):
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def multiply_in_postgres(server: PostgresServer, url: str, *, seeds: int, times: int) -> None:
    """As `multiply_in_sqlite`, and what autovacuum would do a minute later, in the middle of a measurement."""
    statements = _statements(_postgres(times - 1), seeds=seeds, times=times)
    server.sql(
        "BEGIN", *statements, "COMMIT", "VACUUM ANALYZE", "CHECKPOINT", database=url.rpartition("/")[2]
    )


def _statements(dialect: _Dialect, *, seeds: int, times: int) -> list[str]:
    if times < 2:
        return []
    source = f"WITH RECURSIVE copies AS ({dialect.copies})"
    serial, uid = f"serial + n * {seeds}", f"substr(md5(CAST(serial + n * {seeds} AS text)), 1, 16)"
    age = f"n * {AGE_STEP_S}"
    moments = ", ".join(f"{column} + {age}" for column in _MOMENTS)
    of_attempt = ", ".join(f"a.{name}" for name in _ATTEMPT_KEPT.split(", "))
    return [
        f"{source} INSERT INTO jobs (serial, uid, id, {', '.join(_MOMENTS)}, {_KEPT}) {dialect.explicit}"
        f" SELECT {serial}, {uid}, 'job-' || {uid}, {moments}, {_KEPT} FROM jobs, copies WHERE serial <= {seeds}",
        f"{source} INSERT INTO job_labels (label, value, submitted_at, uid, serial)"
        f" SELECT label, value, submitted_at + {age}, {uid}, {serial} FROM job_labels, copies WHERE serial <= {seeds}",
        f"{source} INSERT INTO attempts (uid, number, claimed_at, started_at, ended_at, {_ATTEMPT_KEPT})"
        f" SELECT {uid.replace('serial', 'j.serial')}, a.number, a.claimed_at + {age}, a.started_at + {age},"
        f" a.ended_at + {age}, {of_attempt} FROM jobs j JOIN attempts a ON a.uid = j.uid, copies"
        f" WHERE j.serial <= {seeds}",
        f"{source} INSERT INTO job_specs (serial, spec)"
        f" SELECT {serial}, spec FROM job_specs, copies WHERE serial <= {seeds}",
        "INSERT INTO events (sequence, at, tenant, queue, job_id, uid, state, attempt)"
        f" SELECT serial, submitted_at, tenant, queue, id, uid, state, 0 FROM jobs WHERE serial > {seeds}",
        *(f"UPDATE {table} SET {column} = {column} * {times}" for table, column in _COUNTERS),
        *dialect.last,
    ]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
