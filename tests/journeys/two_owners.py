"""Two services that want the same far pool, on one PostgreSQL, and what must hold of their ledger at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import asyncpg

from runyard.ledger.postgresql.ledger import PostgresqlLedger
from runyard.sdk import Client
from runyard.testing.far import FarPlace
from tests.journeys.conftest import RunningService
from tests.ledger.postgresql.workers import audit, running_at_most

LEASE_S = 3.0
PATIENCE_S = 60.0
SLOTS = 4
RUNNING_MAX = {"queue default": 3, "tenant a": 2, "tenant b": 2, "default/a": 2, "default/b": 2}
POOL = "far"

# All that an owner writes; of the lease only whose it is, for its end moves with each renewal.
_OWNERS_TABLES = ("jobs", "attempts", "events", "pools", "pool_state", "queues", "tenants", "shares", "lanes")


class TwoOwners:
    """`urls` are the ways of each to the one database."""

    def __init__(self, folder: Path, *, place: FarPlace, urls: Sequence[str], database: str) -> None:
        self.place = place
        self._database = database
        self.services = [self._service(folder, name, url) for name, url in zip("xy", urls, strict=True)]
        self._made = 0

    def _service(self, folder: Path, name: str, url: str) -> RunningService:
        config = folder / f"{name}.toml"
        config.write_text(
            f'[ledger]\nurl = "{url}"\nlease = "{LEASE_S:g}s"\n[logs]\ndirectory = "{folder}/logs"\n'
            f'[artifacts]\ndirectory = "{folder}/artifacts"\n'
            f"[queues.default]\nrunning_max = 3\ntenant_running_max = 2\n"
            f"[pools.{POOL}]\n{self.place.section(slots=SLOTS)}"
        )
        environment = {"RUNYARD_CONFIG": str(config), **self.place.environment}
        return RunningService(folder / name, environment=environment)

    # -- services -------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """The first one owns the pool."""
        first, second = self.services
        first.start()
        self.wait_for(lambda: self.owner() is not None)
        second.start()

    def by_pid(self, pid: int) -> tuple[RunningService, RunningService]:
        """The service of that process, and the other."""
        first, second = self.services
        assert first.process is not None
        return (first, second) if first.process.pid == pid else (second, first)

    def client(self, service: RunningService) -> Client:
        """With the token that the first one made: it is in the ledger."""
        return Client(url=service.url, token=self.services[0].token)

    def submit(self, client: Client, count: int, command: str = "sleep 0.2") -> list[tuple[str, str]]:
        """(tenant, id) of each."""
        made = []
        for number in range(count):
            self._made += 1
            tenant, job_id = "ab"[number % 2], f"job-{self._made}"
            client.submit({"steps": [{"run": command}]}, id=job_id, tenant=tenant)
            made.append((tenant, job_id))
        return made

    def finish(self, client: Client, jobs: Sequence[tuple[str, str]]) -> None:
        for tenant, job_id in jobs:
            job = client.wait(job_id, tenant=tenant, timeout_s=PATIENCE_S)
            assert job.state == "succeeded", (job_id, job.state, job.reason)

    def wait_for(self, is_so: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while not is_so():
            assert time.monotonic() < deadline, "\n".join(
                service.log.read_text()[-3000:] for service in self.services
            )
            time.sleep(0.02)

    def times_logged(self, service: RunningService, event: str) -> int:
        return service.log.read_text().count(event)

    def close(self) -> None:
        for service in self.services:
            if service.process is not None and service.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(service.process.pid, signal.SIGCONT)
                service.process.terminate()
                service.process.wait(timeout=PATIENCE_S)

    # -- the ledger -----------------------------------------------------------------------------------------------
    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async def fetched() -> list[asyncpg.Record]:
            session = await asyncpg.connect(self._database)
            try:
                return list(await session.fetch(query, *arguments))
            finally:
                await session.close()

        return asyncio.run(fetched())

    def owner(self) -> str | None:
        """Whose the pool is, as anybody sees it."""
        rows = self.fetch(
            "SELECT p.owner FROM pools p JOIN leases l ON l.pool = p.name"
            " WHERE p.name = $1 AND l.lease_until > extract(epoch FROM clock_timestamp())",
            POOL,
        )
        return str(rows[0]["owner"]) if rows and rows[0]["owner"] else None

    def epoch(self) -> int:
        return int(self.fetch("SELECT epoch FROM pools WHERE name = $1", POOL)[0]["epoch"])

    def snapshot(self) -> dict[str, list[str]]:
        """Every row that an owner may write."""
        return {
            table: [row["row"] for row in self.fetch(f"SELECT t::text AS row FROM {table} t ORDER BY 1")]
            for table in _OWNERS_TABLES
        }

    def check(self) -> None:
        """Once all jobs are final: one accepted outcome each, one start of each place, limits held at every moment, the
        counters true, nothing left running."""
        starts = self.place.starts()
        assert set(starts.values()) <= {1}, starts
        ended = self.fetch(
            "SELECT uid, count(*) FILTER (WHERE outcome LIKE '%succeeded%') AS good,"
            " count(*) FILTER (WHERE state <> 'ended') AS unfinished FROM attempts GROUP BY uid"
        )
        assert {(row["good"], row["unfinished"]) for row in ended} == {(1, 0)}
        finals = self.fetch(
            "SELECT uid, count(*) AS ends FROM events WHERE state NOT IN ('queued', 'starting', 'running', 'canceling')"
            " GROUP BY uid"
        )
        assert {row["ends"] for row in finals} == {1}
        assert self.fetch("SELECT 1 FROM jobs WHERE state <> 'succeeded'") == []
        assert self.place.running() == []
        asyncio.run(self._check_counts())

    async def _check_counts(self) -> None:
        session = await asyncpg.connect(self._database)
        rows = await session.fetch("SELECT uid, queue, tenant FROM jobs")
        await audit(session)
        await session.close()
        ledger = PostgresqlLedger(self._database)
        await ledger.open()
        most = await running_at_most(ledger, {row["uid"]: (row["queue"], row["tenant"]) for row in rows})
        await ledger.close()
        assert all(count <= RUNNING_MAX[name] for name, count in most.items()), most


@contextlib.contextmanager
def two_owners(folder: Path, *, urls: Sequence[str], database: str) -> Iterator[TwoOwners]:
    (folder / "place").mkdir()
    with FarPlace(folder / "place") as place:
        pair = TwoOwners(folder, place=place, urls=urls, database=database)
        try:
            pair.start()
            yield pair
        finally:
            pair.close()
