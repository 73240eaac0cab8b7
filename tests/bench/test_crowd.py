"""The crowd that a claim is measured in has the very rows that as many submits leave."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from runyard.bench import job_pages
from runyard.bench.claims import FEW, fill
from runyard.bench.crowd import multiply_in_postgres, multiply_in_sqlite
from tests.postgres_server import shared_server

TIMES = 3
CHOSEN_ANEW = {"uid", "id", "job_id", "submitted_at", "queued_at", "at", "applied_at", "lease_until"}
"""Names and times."""

Rows = dict[str, list[str]]


def comparable(row: dict[str, object]) -> str:
    return json.dumps({key: value for key, value in row.items() if key not in CHOSEN_ANEW}, sort_keys=True)


def rows_in_sqlite(path: Path) -> Rows:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    tables = [
        row["name"] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    ]
    found = {
        table: sorted(comparable(dict(row)) for row in connection.execute(f"SELECT * FROM {table}"))
        for table in tables
    }
    connection.close()
    return found


def rows_in_postgres(url: str) -> Rows:
    server, database = shared_server(), url.rpartition("/")[2]
    tables = server.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=database)
    found = {}
    for table in tables.split():
        lines = server.sql(f"SELECT row_to_json(t) FROM {table} t", database=database).splitlines()
        found[table] = sorted(comparable(json.loads(line)) for line in lines)
    return found


def test_in_sqlite(tmp_path: Path) -> None:
    submitted, copied = tmp_path / "submitted.db", tmp_path / "copied.db"
    asyncio.run(fill(f"sqlite://{submitted}", FEW * TIMES))
    asyncio.run(fill(f"sqlite://{copied}", FEW))
    multiply_in_sqlite(copied, seeds=FEW, times=TIMES)
    assert len(rows_in_sqlite(copied)["jobs"]) == FEW * TIMES
    assert rows_in_sqlite(copied) == rows_in_sqlite(submitted)


@pytest.mark.service
def test_in_postgres() -> None:
    server = shared_server()
    submitted, copied = server.new_database(), server.new_database()
    asyncio.run(fill(submitted, FEW * TIMES))
    asyncio.run(fill(copied, FEW))
    multiply_in_postgres(server, copied, seeds=FEW, times=TIMES)
    assert len(rows_in_postgres(copied)["jobs"]) == FEW * TIMES
    assert rows_in_postgres(copied) == rows_in_postgres(submitted)
    asyncio.run(fill(copied, 1))  # and the next serial is free


def test_what_ended_is_copied_with_its_labels_and_attempts(tmp_path: Path) -> None:
    """All but the events, which the pages do not read."""
    path = tmp_path / "pages.db"
    asyncio.run(job_pages.fill(f"sqlite://{path}"))
    before = rows_in_sqlite(path)
    multiply_in_sqlite(path, seeds=job_pages.SEEDS, times=TIMES)
    after = rows_in_sqlite(path)
    for table in ("jobs", "attempts", "job_labels"):
        assert shapes(after[table]) == {
            shape: count * TIMES for shape, count in shapes(before[table]).items()
        }
    assert shapes(before["attempts"]).total() == job_pages.ATTEMPTED


def shapes(rows: list[str]) -> Counter[str]:
    """Without what tells a row from its copies."""
    told_apart = {"serial", "cancel_requested_at", "claimed_at", "started_at", "ended_at"}
    plain = ({key: value for key, value in json.loads(row).items() if key not in told_apart} for row in rows)
    return Counter(json.dumps(one, sort_keys=True) for one in plain)
