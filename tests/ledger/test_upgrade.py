"""A release and the next one, by turns, on one SQLite ledger: the next is the same with one more migration."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from runyard.ledger.migrations import Migration, list_migrations
from runyard.ledger.sqlite.ledger import SqliteLedger
from runyard.model.errors import LedgerUnavailable
from tests.contracts.ledger.world import ManualClock, new_job

THIS = list_migrations("sqlite")
NEWEST = THIS[-1].number


def further(number: int, beside: int | None) -> Migration:
    stated = "" if beside is None else f"-- lives beside: {beside:04}\n"
    return Migration(number, f"{number:04}_next.sql", f"{stated}CREATE TABLE next_{number} (a INTEGER);")


async def serve(path: Path, migrations: tuple[Migration, ...], job: int) -> None:
    """A service of that release starts, takes a job, and stops."""
    ledger = SqliteLedger(str(path), clock=ManualClock(), migrations=migrations)
    await ledger.open()
    try:
        [answer] = await ledger.submit([new_job(job)])
        assert not isinstance(answer, Exception)
    finally:
        await ledger.close()


async def test_an_older_release_starts_again_on_what_lives_beside_it(tmp_path: Path):
    path = tmp_path / "ledger.db"
    await serve(path, (*THIS, further(NEWEST + 1, beside=NEWEST)), job=1)
    await serve(path, THIS, job=2)
    await serve(path, (*THIS, further(NEWEST + 1, beside=NEWEST)), job=3)


@pytest.mark.parametrize("beside", [None, NEWEST + 1])
async def test_an_older_release_is_refused_where_the_newer_schema_says_so(tmp_path: Path, beside: int | None):
    path = tmp_path / "ledger.db"
    harmless = further(NEWEST + 1, beside=NEWEST)
    await serve(path, (*THIS, harmless, further(NEWEST + 2, beside=beside)), job=1)
    with pytest.raises(LedgerUnavailable, match=rf"{NEWEST + 2:04}_next.sql.*up to {NEWEST}\)"):
        await serve(path, THIS, job=2)


async def test_a_release_that_knows_enough_lives_beside_what_an_older_one_cannot(tmp_path: Path):
    path = tmp_path / "ledger.db"
    middle = (*THIS, further(NEWEST + 1, beside=None))
    await serve(path, (*middle, further(NEWEST + 2, beside=NEWEST + 1)), job=1)
    await serve(path, middle, job=2)


async def test_a_ledger_of_another_lineage_is_refused(tmp_path: Path):
    path = tmp_path / "ledger.db"
    await serve(path, (*THIS, further(NEWEST + 1, beside=1)), job=1)
    with pytest.raises(LedgerUnavailable, match=f"{NEWEST + 1:04}_next.sql"):
        await serve(path, (*THIS, further(NEWEST + 2, beside=1)), job=2)


async def test_a_ledger_from_before_releases_said_what_they_live_beside_is_taken_on(tmp_path: Path):
    path = tmp_path / "ledger.db"
    await serve(path, THIS, job=1)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE migrations DROP COLUMN beside")
    connection.close()
    await serve(path, THIS, job=2)
