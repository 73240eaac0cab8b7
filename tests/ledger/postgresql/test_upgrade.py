"""Two releases on one PostgreSQL ledger: the next one is the same with one more migration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from runyard.ledger.migrations import Migration, list_migrations
from runyard.ledger.postgresql.ledger import PostgresqlLedger
from runyard.model.errors import LedgerUnavailable
from tests.contracts.ledger.world import new_job
from tests.ledger.postgresql.workers import own, request
from tests.postgres_server import PostgresServer

THIS = list_migrations("postgresql")
NEWEST = THIS[-1].number


def the_next(*, beside: int | None) -> tuple[Migration, ...]:
    stated = "" if beside is None else f"-- lives beside: {beside:04}\n"
    sql = f"{stated}ALTER TABLE jobs ADD COLUMN colour text; CREATE TABLE next (a integer);"
    return (*THIS, Migration(NEWEST + 1, f"{NEWEST + 1:04}_next.sql", sql))


COMPATIBLE, INCOMPATIBLE = the_next(beside=NEWEST), the_next(beside=None)


@asynccontextmanager
async def service(url: str, migrations: tuple[Migration, ...]) -> AsyncIterator[PostgresqlLedger]:
    ledger = PostgresqlLedger(url, migrations=migrations)
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


async def test_a_rolling_upgrade_loses_nothing_while_the_older_release_restarts_beside_it(
    server: PostgresServer,
):
    url = server.new_database()
    async with service(url, THIS) as old:
        await old.submit([new_job(1)])
        async with service(url, COMPATIBLE) as new:
            await old.submit([new_job(2)])
            await new.submit([new_job(3)])
            async with service(url, THIS) as restarted:
                await restarted.submit([new_job(4)])
                fence = await own(restarted, "local")
                claimed = await restarted.claim(request(fence, 0, 1, 2, 3))
    assert {one.job.id for one in claimed} == {"job-1", "job-2", "job-3", "job-4"}


async def test_an_older_release_is_refused_where_the_newer_schema_says_so(server: PostgresServer):
    url = server.new_database()
    async with service(url, INCOMPATIBLE):
        with pytest.raises(LedgerUnavailable, match=f"{NEWEST + 1:04}_next.sql"):
            async with service(url, THIS):
                pass


async def test_what_cannot_live_beside_a_running_service_waits_until_it_is_stopped(server: PostgresServer):
    url = server.new_database()
    async with service(url, THIS) as old:
        with pytest.raises(LedgerUnavailable, match="a service of an older Runyard") as refused:
            async with service(url, INCOMPATIBLE):
                pass
        assert "stop the older services" in (refused.value.cure or "")
        await old.submit([new_job(1)])
    async with service(url, INCOMPATIBLE) as new:
        assert await new.find_job("default", "job-1") is not None


@pytest.mark.parametrize("migrations", [COMPATIBLE, INCOMPATIBLE], ids=["compatible", "incompatible"])
async def test_of_an_older_and_a_newer_one_that_start_at_once_none_works_on_what_it_cannot(
    server: PostgresServer, migrations: tuple[Migration, ...]
):
    url = server.new_database(is_migrated=False)
    ledgers = [PostgresqlLedger(url, migrations=known) for known in (THIS, migrations, THIS, migrations)]
    answers = await asyncio.gather(*(ledger.open() for ledger in ledgers), return_exceptions=True)
    refused = [isinstance(answer, LedgerUnavailable) for answer in answers]
    assert all(answer is None or isinstance(answer, LedgerUnavailable) for answer in answers), answers
    connection = await asyncpg.connect(url)
    applied = await connection.fetchval("SELECT max(number) FROM migrations")
    times = await connection.fetchval("SELECT count(*) FROM migrations")
    await connection.close()
    for ledger in ledgers:
        await ledger.close()
    assert times == applied
    if migrations is COMPATIBLE:
        assert not any(refused)
    else:  # either the newer ones came first, and the older ones are refused, or the other way round
        assert refused in ([applied > NEWEST, applied == NEWEST] * 2,)
