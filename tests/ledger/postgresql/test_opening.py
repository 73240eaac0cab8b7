"""Starting: once migrated whoever comes first, side by side with another release, and refusals that show no secret."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import asyncpg
import pytest

from runyard.ledger.migrations import Migration, list_migrations
from runyard.ledger.opening import create_ledger
from runyard.ledger.postgresql import migrating
from runyard.ledger.postgresql.ledger import PostgresqlLedger
from runyard.model.errors import ConfigError, LedgerUnavailable
from runyard.testing.postgres_server import PASSWORD, PostgresServer
from tests.contracts.ledger.world import ManualClock, new_job
from tests.ledger.postgresql.workers import own, request


async def refusal(url: str, **options: object) -> LedgerUnavailable:
    ledger = PostgresqlLedger(url, **options)  # type: ignore[arg-type]
    with pytest.raises(LedgerUnavailable) as caught:
        await ledger.open()
    assert caught.value.cure
    assert PASSWORD not in f"{caught.value} {caught.value.cure} {caught.value.__cause__!r}"
    return caught.value


async def test_services_that_start_at_once_migrate_once(server: PostgresServer):
    url = server.new_database(is_migrated=False)
    ledgers = [PostgresqlLedger(url) for _ in range(5)]
    await asyncio.gather(*(ledger.open() for ledger in ledgers))
    for ledger in ledgers:
        assert len(await ledger.list_queues()) == 1
        await ledger.close()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM migrations") == len(list_migrations("postgresql"))
    assert await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'runyard_%'") == 1
    await connection.close()


async def test_a_ledger_that_is_closed_can_be_opened_again(server: PostgresServer):
    url = server.new_database()
    ledger = PostgresqlLedger(url)
    for number in range(2):
        await ledger.open()
        await ledger.submit([new_job(number)])
        await ledger.close()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'runyard_%'") == 1
    await connection.close()


async def test_the_previous_release_works_on_beside_the_next(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
):
    url = server.new_database()
    old = PostgresqlLedger(url)
    await old.open()
    script = migrating.function_script() + "\n-- the next release's\n"
    monkeypatch.setattr(migrating, "function_script", lambda: script)
    sql = "-- lives beside: 0001\nALTER TABLE jobs ADD COLUMN colour text;"
    next_migration = Migration(9999, "9999_next.sql", sql)
    new = PostgresqlLedger(url, migrations=(*list_migrations("postgresql"), next_migration))
    await new.open()
    await old.submit([new_job(1)])
    await new.submit([new_job(2)])
    fence = await own(old, "local")
    [first] = await old.claim(request(fence, 0))
    [second] = await new.claim(request(fence, 1))
    assert {first.job.id, second.job.id} == {"job-1", "job-2"}
    await old.close()
    await new.close()


async def test_a_changed_migration_and_a_newer_ledger_are_refused(server: PostgresServer):
    url = server.new_database()
    [first, *rest] = list_migrations("postgresql")
    changed = (Migration(first.number, first.name, first.sql + "-- edited\n"), *rest)
    assert first.name in (await refusal(url, migrations=changed)).message
    newer = Migration(9999, "9999_future.sql", "CREATE TABLE future (a integer);")
    ledger = PostgresqlLedger(url, migrations=(*list_migrations("postgresql"), newer))
    await ledger.open()
    await ledger.close()
    assert "newer" in (await refusal(url)).message


async def test_a_migration_that_fails_leaves_nothing_of_itself(server: PostgresServer):
    url = server.new_database()
    broken = Migration(
        9999, "9999_broken.sql", "CREATE TABLE half (a integer); INSERT INTO nowhere VALUES (1);"
    )
    with pytest.raises(asyncpg.PostgresError):
        await PostgresqlLedger(url, migrations=(*list_migrations("postgresql"), broken)).open()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    await connection.close()


def test_migrations_are_numbered_without_a_gap():
    numbers = [migration.number for migration in list_migrations("postgresql")]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_what_is_wrong_with_the_server_is_said_without_the_password(server: PostgresServer):
    assert "28P01" in (await refusal(server.url("postgres", password=f"{PASSWORD}-not"))).message
    assert "3D000" in (await refusal(server.url("nowhere"))).message
    nobody_there = await refusal(f"postgresql://runyard:{PASSWORD}@127.0.0.1:1/x")
    assert "127.0.0.1:1/x" in nobody_there.message


async def test_a_unix_socket_serves_as_well(server: PostgresServer):
    name = server.new_database().rpartition("/")[2]
    ledger = PostgresqlLedger(server.url(name, by_socket=True))
    await ledger.open()
    assert len(await ledger.list_queues()) == 1
    await ledger.close()
    await ledger.close()  # again is nothing
    with pytest.raises(LedgerUnavailable):
        await ledger.list_queues()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3/cr#et@host/db",
        "postgresql://u:s3cret@x@host/d@b",
        "postgresql://u:s3cret@host:port/db",
        "postgresql://u:s3cret@[host/db",
        "postgresql://u:s3cret/@host/db",
    ],
)
def test_a_broken_url_is_refused_without_showing_any_of_it(url: str):
    with pytest.raises(ConfigError) as caught:
        create_ledger(url, clock=ManualClock())
    assert "s3" not in f"{caught.value!r} {caught.value.cure}"


def test_a_ledger_does_not_show_its_password():
    ledger = create_ledger("postgresql://u:s3cret@host:5432/db?application_name=x", clock=ManualClock())
    assert "s3cret" not in repr(vars(ledger)) + repr(vars(ledger._database)["where"])  # type: ignore[attr-defined]


async def test_a_server_that_goes_and_comes_back_is_survived(server: PostgresServer, tmp_path: Path):
    own_server = PostgresServer(server._binaries)
    try:
        own_server.start()
        own_server.sql("CREATE DATABASE ledger")
        ledger = PostgresqlLedger(own_server.url("ledger"))
        await ledger.open()
        await ledger.submit([new_job(1)])
        subscription = ledger.subscribe("ready")
        await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
        with pytest.raises(LedgerUnavailable):
            await ledger.submit([new_job(2)])
        with pytest.raises(LedgerUnavailable):
            await ledger.list_queues()
        await asyncio.to_thread(own_server.start)
        async with asyncio.timeout(10):
            assert await subscription.wait(10) == {"ready"}  # the listener is back: look at everything
        [again] = await ledger.submit([new_job(1)])
        assert not again.is_new  # type: ignore[union-attr]
        [second] = await ledger.submit([new_job(2)])
        assert second.is_new  # type: ignore[union-attr]
        await ledger.close()
    finally:
        await asyncio.to_thread(own_server.remove)
