"""The owner of a pool killed, and paused (SIGSTOP, then CONT): how soon the other service owns it, and that the one
that wakes changes nothing. Two services on a throw-away PostgreSQL, one far place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from runyard.bench.comparing import Comparison, median
from runyard.bench.throwaway import ThrowawayService
from runyard.ledger.postgresql.ledger import PostgresqlLedger
from runyard.model.errors import ConfigError
from runyard.sdk import AsyncClient
from runyard.testing.far import FarPlace
from runyard.testing.postgres_server import NO_SERVER, PostgresServer, find_binaries

POOL = "far"
JOBS = 4
LOOK_S = 0.01
PATIENCE_S = 120.0
_TABLES = ("jobs", "attempts", "events", "pools", "pool_state", "queues", "tenants", "shares")


async def takeover(*, rounds: int, lease_s: float = 15.0) -> Comparison:
    """`rounds` kills and as many pauses, by turns, each while jobs run."""
    taken: dict[signal.Signals, list[float]] = {signal.SIGKILL: [], signal.SIGSTOP: []}
    failures: list[str] = []
    async with _two_services(lease_s) as yard:
        for _ in range(rounds):
            for how, times in taken.items():
                times.append(await yard.round(how, failures))
        failures += [f"{name} was started {count} times" for name, count in yard.twice_started()]
    killed, paused = (tuple(times) for times in taken.values())
    return Comparison(
        name=f"the owner of a pool killed, and paused, {rounds} times each, lease {lease_s:g} s: the other owns it",
        reference_name="the lease",
        reference=(lease_s,) * len(killed + paused),
        subject=killed + paused,
        goal="within the lease; the paused one changes nothing after, nothing is started twice",
        is_met=max(killed + paused) <= lease_s and not failures,
        measured=f"{median(killed):.1f} s after a kill, {median(paused):.1f} s after a pause, at most "
        f"{max(killed + paused):.1f} s; {len(failures)} changes or second starts",
        note="; ".join(failures[:3]),
    )


@dataclass(slots=True)
class _Yard:
    """`services`: the owner first."""

    services: list[ThrowawayService]
    ledger: PostgresqlLedger
    server: PostgresServer
    database: str
    place: FarPlace
    token: str
    made: int = field(default=0)

    async def round(self, how: signal.Signals, failures: list[str]) -> float:
        """Seconds until the other owned the pool. It is the owner of the next round."""
        owner, other = self.services
        epoch = await self._epoch()
        async with AsyncClient(url=other.url, token=self.token) as client:
            jobs = await self._running_jobs(client)
            os.kill(owner.pid, how)
            began_at = time.monotonic()
            while await self._epoch() == epoch:  # noqa: ASYNC110 -- another process makes it so
                await asyncio.sleep(LOOK_S)
            took_s = time.monotonic() - began_at
            for job in jobs:
                state = (await client.wait(job, timeout_s=PATIENCE_S)).state
                if state != "succeeded":
                    failures.append(f"{job} is {state}")
        await self._come_back(owner, how, failures)
        self.services.reverse()
        return took_s

    async def _running_jobs(self, client: AsyncClient) -> list[str]:
        jobs = []
        for _ in range(JOBS):
            self.made += 1
            submitted = await client.submit({"steps": [{"run": "sleep 1"}]}, id=f"takeover-{self.made}")
            jobs.append(submitted.id)
        await _until(lambda: len(self.place.starts()) == self.made)
        return jobs

    async def _come_back(self, owner: ThrowawayService, how: signal.Signals, failures: list[str]) -> None:
        before = self._rows()
        if how is signal.SIGKILL:
            await owner.stop()  # it is dead: this only waits for it
            await owner.start()
        else:
            lost = _times_lost(owner)
            os.kill(owner.pid, signal.SIGCONT)
            await _until(lambda: _times_lost(owner) > lost)
        if self._rows() != before:
            failures.append(f"rows changed after {how.name}")

    def twice_started(self) -> list[tuple[str, int]]:
        return [(name, count) for name, count in self.place.starts().items() if count > 1]

    def _rows(self) -> str:
        """All that an owner may write."""
        queries = (f"SELECT t::text FROM {table} t ORDER BY 1" for table in _TABLES)
        return self.server.sql(*queries, database=self.database)

    async def _epoch(self) -> int:
        pool = await self.ledger.get_pool(POOL)
        return 0 if pool is None else pool.epoch


def _times_lost(service: ThrowawayService) -> int:
    return (service.data.parent / "service.log").read_text().count("pool_lost")


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 -- another process makes it so
            await asyncio.sleep(LOOK_S)


@contextlib.asynccontextmanager
async def _two_services(lease_s: float) -> AsyncIterator[_Yard]:
    """The first one owns the pool. Raises ConfigError where there is no PostgreSQL to start."""
    binaries = find_binaries()
    if binaries is None:
        raise ConfigError(NO_SERVER, cure="install it to measure this")
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runyard-bench-")))
        server = PostgresServer(binaries)
        stack.callback(server.remove)
        server.start()
        database = "takeover"
        server.sql(f"CREATE DATABASE {database}")
        ledger = PostgresqlLedger(server.url(database))
        await ledger.open()
        stack.push_async_callback(ledger.close)
        (folder / "place").mkdir()
        place = stack.enter_context(FarPlace(folder / "place"))
        services = [
            _laid_out(folder / name, url=server.url(database), lease_s=lease_s, place=place) for name in "xy"
        ]
        for service in services:
            await service.start()
            stack.push_async_callback(_end, service)
            await _owned(ledger)
        token = (services[0].data / "admin.token").read_text().strip()
        yield _Yard(services, ledger, server, database, place, token)


async def _owned(ledger: PostgresqlLedger) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (pool := await ledger.get_pool(POOL)) is None or pool.owner is None:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(LOOK_S)


def _laid_out(root: Path, *, url: str, lease_s: float, place: FarPlace) -> ThrowawayService:
    (root / "data").mkdir(parents=True)
    config = root / "runyard.toml"
    config.write_text(
        f'[ledger]\nurl = "{url}"\nlease = "{lease_s:g}s"\n'
        f"[pools.{POOL}]\n{place.section(slots=JOBS, is_fused=False)}"
    )
    return ThrowawayService(data=root / "data", config=config, environment=place.environment)


async def _end(service: ThrowawayService) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(service.pid, signal.SIGCONT)
    await service.stop()
