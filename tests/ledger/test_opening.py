import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from runyard.ledger.migrations import Migration, list_migrations
from runyard.ledger.opening import create_ledger
from runyard.ledger.sqlite.ledger import SqliteLedger
from runyard.model.errors import ConfigError, LedgerUnavailable
from tests.contracts.ledger.world import ManualClock, new_job

CLOCK = ManualClock()


async def opened(path: Path | str, **options: object) -> SqliteLedger:
    ledger = SqliteLedger(str(path), clock=CLOCK, **options)  # type: ignore[arg-type]
    await ledger.open()
    return ledger


async def refusal(path: Path | str, **options: object) -> LedgerUnavailable:
    with pytest.raises(LedgerUnavailable) as caught:
        await opened(path, **options)
    assert str(path) in caught.value.message
    assert caught.value.cure
    return caught.value


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_the_file_and_what_stands_beside_it_are_for_its_owner_only(tmp_path: Path):
    ledger = await opened(tmp_path / "ledger.db")
    await ledger.submit([new_job(1)])
    files = modes(tmp_path)
    assert files.keys() == {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"}
    assert set(files.values()) == {0o600}
    await ledger.close()


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path):
    ledger = await opened(tmp_path / "ledger.db")
    await ledger.submit([new_job(1)])
    await ledger.close()
    ledger = await opened(tmp_path / "ledger.db")
    assert await ledger.find_job("default", "job-1") is not None
    await ledger.close()
    await ledger.close()  # again is nothing


async def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path):
    path = tmp_path / "ledger.db"
    ledger = await opened(path)
    program = (
        "import asyncio, sys; from tests.ledger.test_opening import opened\n"
        "try: asyncio.run(opened(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("LedgerUnavailable")
    assert f"process {os.getpid()} " in done.stdout
    await ledger.close()
    await (await opened(path)).close()


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    await refusal(tmp_path / "nowhere" / "ledger.db")


async def test_a_folder_that_cannot_be_written_is_named():
    await refusal("/proc/self/ledger.db")  # not even by root


async def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path):
    path = tmp_path / "ledger.db"
    path.write_text("this is not a database, but long enough to look like one\n" * 100)
    error = await refusal(path)
    assert "not a database" in error.message


async def test_a_changed_migration_is_refused(tmp_path: Path):
    path = tmp_path / "ledger.db"
    await (await opened(path)).close()
    [first, *rest] = list_migrations("sqlite")
    changed = (Migration(first.number, first.name, first.sql + "-- edited\n"), *rest)
    error = await refusal(path, migrations=changed)
    assert first.name in error.message


async def test_a_database_of_a_newer_release_is_refused(tmp_path: Path):
    path = tmp_path / "ledger.db"
    newer = Migration(9999, "9999_future.sql", "CREATE TABLE future (a INTEGER);")
    await (await opened(path, migrations=(*list_migrations("sqlite"), newer))).close()
    error = await refusal(path)
    assert "newer" in error.message
    assert "9999_future.sql" in error.message


async def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path: Path):
    path = tmp_path / "ledger.db"
    broken = Migration(
        9999, "9999_broken.sql", "CREATE TABLE half (a INTEGER);\nINSERT INTO nowhere VALUES (1);\n"
    )
    with pytest.raises(LedgerUnavailable):
        await opened(path, migrations=(*list_migrations("sqlite"), broken))
    ledger = await opened(path)
    await ledger.close()
    with sqlite3.connect(path) as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchall()
    connection.close()


def test_migrations_are_numbered_without_a_gap():
    numbers = [migration.number for migration in list_migrations("sqlite")]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_ledger_that_is_not_open_says_so(tmp_path: Path):
    ledger = SqliteLedger(str(tmp_path / "ledger.db"), clock=CLOCK)
    with pytest.raises(LedgerUnavailable):
        await ledger.list_queues()


@pytest.mark.parametrize(
    "url",
    ["postgresq://host/db", "sqlite://relative.db", "sqlite:///", "mysql://x", "/var/lib/ledger.db", ""],
)
def test_a_url_that_names_no_ledger_is_refused_with_the_cure(url: str):
    with pytest.raises(ConfigError) as caught:
        create_ledger(url, clock=CLOCK)
    assert "sqlite:///" in (caught.value.cure or "")
