"""An hour of everything at once, shortened: at every checkpoint the service holds what an idle one holds, and no more.

The test's process adopts the orphans of what it starts, so that a shim or helper that outlives its service is found
among its descendants. Each round ends when its users saw what they waited for; what the service still clears away is
waited for, and named when it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runyard.sdk import AsyncClient
from runyard.sdk.call import Call
from runyard.sdk.retrying import RetryPolicy
from tests.journeys.conftest import RunningService
from tests.journeys.holdings import (
    LedgerRows,
    ProcessHoldings,
    adopting_orphans,
    cgroup_tree,
    cgroups_left,
    descendants,
    folders_left,
    is_zombie,
    is_zygote,
    mounts_of,
    namespaces_left,
    process_holdings,
    processes_left,
    shim_of,
)
from tests.journeys.traffic import CONFIG, Traffic

pytestmark = pytest.mark.service

CLEARED_S = 20.0
LOOK_S = 0.05
THREADS_MORE = 20
DESCRIPTORS_MORE = 6
HEAP_BYTES_MORE = 4 << 20
HEAP_BYTES_MORE_BY_JOB = 256
LEDGER_CONNECTIONS = 3
KEPT_S = 1.0
STAGE = "/run/runyard"
PATIENT = RetryPolicy(tries_max=200, wait_s_max=60.0, delay_s_first=0.05, delay_s_max=0.5)
"""A restart on a busy machine takes longer than the three seconds that a client waits by itself."""

METRICS = Call(what="read the metrics", method="GET", path="/metrics", parse=bytes.decode)


@dataclass
class Watched:
    """A service under load, with all that is looked at."""

    service: RunningService
    folder: Path
    strangers: frozenset[int] = field(default_factory=lambda: frozenset(descendants(os.getpid())))
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    cursor: str = "0"
    made: int = 0
    rounds: int = 0

    def start_idle(self) -> None:
        """The first start; what it holds now is the measure for ever."""
        self.start()
        self.idle = self._process()
        self.zygote_mounts = len(self._mounts())

    def start(self) -> None:
        self.service.start()
        self.rows = LedgerRows(self.service.data / "ledger.sqlite")

    def stop(self, how: signal.Signals) -> None:
        self.rows.close()
        if how is signal.SIGKILL:
            self.service.kill()
        else:
            self.service.stop()

    def forget_soon(self) -> None:
        """From the next start on only what ended just now is kept."""
        config = Path(self.service.environment["RUNYARD_CONFIG"])
        config.write_text(f'{CONFIG}[retention]\njobs = "{KEPT_S:g}s"\n')

    # -- the load -----------------------------------------------------------------------------------------------------
    async def round(self) -> None:
        """One round of everything, its feed read whole, its counters recounted in the middle of it."""
        self.rounds += 1
        async with self._feed(), self._client() as client:
            traffic = Traffic(client, self.folder / "downloads", lose=self._lose)
            load = asyncio.create_task(traffic.round(f"round-{self.rounds}"))
            while not load.done():
                assert self.rows.miscounts() == []
                await asyncio.wait({load}, timeout=0.5)
            await load
            self.made += traffic.made

    async def round_with_restart(self, how: signal.Signals) -> None:
        """The service is stopped or killed in the middle, and started again; no user notices more than a delay."""
        self.rounds += 1
        async with self._feed(), self._client() as client:
            traffic = Traffic(client, self.folder / "downloads", lose=self._lose)
            load = asyncio.create_task(traffic.round(f"round-{self.rounds}"))
            await self._until_running(client, 8)
            await asyncio.to_thread(self.stop, how)
            await asyncio.to_thread(self.start)
            await load
            self.made += traffic.made

    async def _until_running(self, client: AsyncClient, count: int) -> None:
        async with contextlib.aclosing(client.events(after=self.cursor)) as changes:
            async for change in changes:
                count -= change.state == "running"
                if count == 0:
                    return

    async def _lose(self, uid: str) -> None:
        shim = shim_of(descendants(os.getpid()), f"runyard-{uid}-1")
        assert shim is not None, "the attempt has no shim"
        os.kill(shim, signal.SIGKILL)

    @contextlib.asynccontextmanager
    async def _feed(self) -> AsyncIterator[None]:
        """Reads every change while the load lasts, over restarts too."""

        reading = asyncio.create_task(self._read_feed())
        yield
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    async def read_feed_to_its_end(self) -> None:
        """Until it told the end of every job that was made; fails where it does not."""
        async with asyncio.timeout(CLEARED_S):
            await self._read_feed(ends=self.made)

    async def _read_feed(self, ends: int | None = None) -> None:
        if self.ends.total() == ends:
            return
        async with self._client() as client, contextlib.aclosing(client.events(after=self.cursor)) as changes:
            async for change in changes:
                self.cursor = change.cursor
                self.ends[change.tenant, change.job] += change.is_final
                if self.ends.total() == ends:
                    return

    def _client(self) -> AsyncClient:
        return AsyncClient(url=self.service.url, token=self.service.token, policy=PATIENT)

    async def prune(self) -> None:
        """What a service that died had settled and not yet removed is the sweep's: it must be two minutes old and be
        found twice. Here it is made old, and the operator asks."""
        attempts = self.service.data / "pools" / "local" / "attempts"
        for name in os.listdir(attempts):
            os.utime(attempts / name, (0, 0))
        async with self._client() as client:
            for _ in range(2):
                operation = await client.pools.prune("local", is_dry_run=False)
                assert operation.result is not None, operation
                assert operation.result["ok"], operation

    # -- what is looked at --------------------------------------------------------------------------------------------
    async def checkpoint(self) -> int:
        """The bytes of heap, once nothing is left over. Fails with what stays."""
        deadline = time.monotonic() + CLEARED_S
        while left := self._leftovers():
            if time.monotonic() > deadline:
                pytest.fail(f"after round {self.rounds} there stay:\n" + "\n".join(left[:40]))
            await asyncio.sleep(LOOK_S)
        return self._process().heap_bytes

    def _leftovers(self) -> list[str]:
        ours = self._ours()
        return [
            *self.rows.unfinished(),
            *self.rows.miscounts(),
            *self.rows.talkative(),
            *folders_left(self.service.data, self.rows.uids("jobs")),
            *processes_left(self._pid, ours),
            *namespaces_left(ours),
            *cgroups_left(cgroup_tree(), self.rows.uids("events")),
            *self._mounts_left(),
            *self._process().above(
                self.idle,
                threads_max=self.idle.threads + THREADS_MORE,
                descriptors_max=DESCRIPTORS_MORE,
            ),
        ]

    def _mounts_left(self) -> list[str]:
        beneath = str(self.service.data)
        left = [f"mount {point}" for point in mounts_of(os.getpid(), beneath)]
        more = self._mounts()[self.zygote_mounts :]
        return left + [f"the zygote's mount {point}" for point in more]

    def _mounts(self) -> list[str]:
        [zygote] = [pid for pid in self._ours() if is_zygote(pid)]
        return mounts_of(zygote, str(self.service.data), STAGE)

    def _process(self) -> ProcessHoldings:
        with self.service.client() as client:
            return process_holdings(self._pid, client.raw(METRICS))

    @property
    def _pid(self) -> int:
        assert self.service.process is not None
        return self.service.process.pid

    def _ours(self) -> list[int]:
        """What descends from us and is not of another test. Orphans that ended are buried here, as init would."""
        found = []
        for pid in descendants(os.getpid()):
            if pid in self.strangers:
                continue
            if is_zombie(pid) and pid != self._pid and _is_child(pid):
                os.waitpid(pid, 0)
                continue
            found.append(pid)
        return found

    async def heaps(self, rounds: int, *, warm_up: int) -> None:
        """`rounds` rounds after the warm-up; what the heap grew by must be below a bound and stay there."""
        for _ in range(warm_up):
            await self.round()
        await self.checkpoint()
        made, heaps, ledger_bytes = self.made, [], self.rows.size_bytes()
        for _ in range(rounds):
            await self.round()
            heaps.append(await self.checkpoint())
        assert_no_growth(heaps, jobs=self.made - made, ledger_bytes=self.rows.size_bytes() - ledger_bytes)


def assert_no_growth(heaps: list[int], *, jobs: int, ledger_bytes: int) -> None:
    """The last third against the first: medians, because a collection more or less moves a sample by a MiB. What the
    ledger's file grew by may be in the page cache of each of its connections (which has a bound of its own)."""
    third = max(1, len(heaps) // 3)
    growth = statistics.median(heaps[-third:]) - statistics.median(heaps[:third])
    bound = HEAP_BYTES_MORE + HEAP_BYTES_MORE_BY_JOB * jobs + LEDGER_CONNECTIONS * ledger_bytes
    shown = ", ".join(f"{heap >> 10:,}" for heap in heaps)
    assert growth <= bound, (
        f"the heap grew by {growth / 1024:.0f} KiB over {jobs} jobs; KiB by round: {shown}"
    )


def _is_child(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    return False


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """On a port that a restart keeps."""
    config = tmp_path / "runyard.toml"
    config.write_text(CONFIG)
    service = RunningService(tmp_path / "data", environment={"RUNYARD_CONFIG": str(config)}, port=free_port())
    watched = Watched(service, tmp_path)
    with adopting_orphans():
        try:
            watched.start_idle()
            yield watched
        finally:
            service.close()
            watched.rows.close()


async def hold_under_load(watched: Watched, *, rounds: int, restarts: int, warm_up: int) -> None:
    await watched.heaps(rounds, warm_up=warm_up)
    sizes = watched.rows.sizes()
    for number in range(restarts):
        await watched.round_with_restart(signal.SIGKILL if number % 2 else signal.SIGTERM)
        await watched.prune()
        await watched.checkpoint()
    await watched.heaps(rounds, warm_up=warm_up)
    assert watched.rows.sizes() == sizes
    await watched.read_feed_to_its_end()
    assert set(watched.ends.values()) <= {0, 1}, "a job ended twice in the feed"
    await asyncio.to_thread(watched.stop, signal.SIGTERM)
    watched.forget_soon()
    ended_before = time.time()
    await asyncio.to_thread(watched.start)
    await until_swept(watched, ended_before - KEPT_S)
    await watched.checkpoint()


async def until_swept(watched: Watched, ended_before: float) -> None:
    """The retention sweeps at the start of a service."""
    deadline = time.monotonic() + CLEARED_S
    while left := watched.rows.kept_too_long(ended_before=ended_before):
        assert time.monotonic() < deadline, left[:10]
        await asyncio.sleep(LOOK_S)


@pytest.mark.timeout(300)
async def test_a_minute_of_everything_leaves_nothing_behind(watched: Watched) -> None:
    await hold_under_load(watched, rounds=3, restarts=2, warm_up=1)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_many_minutes_of_everything_leave_nothing_behind(watched: Watched) -> None:
    await hold_under_load(watched, rounds=40, restarts=12, warm_up=4)
