"""What the whole service costs on top of the sandbox: latency, rate, backlog, idleness. Over HTTP, as users have it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from runyard.bench.bare_bwrap import rate_by_xargs
from runyard.bench.comparing import Comparison, compare_difference, compare_ratio, in_turns
from runyard.bench.direct import DirectSandbox
from runyard.bench.throwaway import ThrowawayService, throwaway_service
from runyard.bench.throwaway_postgres import throwaway_postgres
from runyard.sdk import AsyncClient
from runyard.sdk.following import LogChunk

SMALL = {"cpu": "100m", "memory": "64Mi"}
IDLE_S = 10.0
RSS_BYTES_MAX = 120 << 20
CPU_SHARE_MAX = 0.01


async def first_byte(*, rounds: int) -> Comparison:
    """Submit over HTTP until the command's first byte reaches the follower, against the sandbox without a service."""
    async with throwaway_service(slots=2) as service, service.client() as client, DirectSandbox() as direct:
        series = await in_turns(direct.first_byte_s, lambda: _first_byte_s(client), rounds=rounds)
    return compare_difference(
        "submit over HTTP -> first byte of the command, idle service",
        "the same sandbox started directly",
        series,
        p50_s=0.010,
        p95_s=0.025,
    )


async def _first_byte_s(client: AsyncClient) -> float:
    began = time.perf_counter()
    job = await client.submit({"steps": [{"command": ["echo", "x"]}], "requirements": SMALL})
    async for item in client.follow_log(job.id):
        if isinstance(item, LogChunk):
            elapsed = time.perf_counter() - began
            await client.wait(job.id)
            return elapsed
    raise RuntimeError(f"job {job.id} printed nothing")


async def many_jobs(
    *, count: int, at_a_time: int = 8, rounds: int = 3, ledger_url: str | None = None
) -> Comparison:
    """Jobs of `true`, all outcomes read back over HTTP, against xargs over the same bubblewrap command."""
    async with (
        throwaway_service(slots=at_a_time, ledger_url=ledger_url) as service,
        service.client() as client,
        DirectSandbox() as direct,
    ):

        async def reference() -> float:
            return await asyncio.to_thread(
                rate_by_xargs,
                direct.bench.reference,
                count=count,
                at_a_time=at_a_time,
                folder=service.data.parent,
            )

        series = await in_turns(reference, lambda: _job_rate(client, count), rounds=rounds)
    return compare_ratio(
        f"{count:,} jobs of `true`, {at_a_time} at a time, over HTTP, all outcomes read back"
        + (", PostgreSQL" if ledger_url else ""),
        f"`xargs -P {at_a_time}` over the same bwrap",
        series,
        bound=0.5,
        kind="at least",
        note=f"{rounds} rounds",
    )


async def _job_rate(client: AsyncClient, count: int) -> float:
    """Jobs a second, from the first submit to the last outcome read from the event feed."""
    document = {"steps": [{"command": ["true"]}], "requirements": SMALL}
    cursor = await _newest(client)
    began = time.perf_counter()
    items = await client.submit_batch([document] * count)
    waiting = {item.id for item in items}
    if None in waiting:
        raise RuntimeError("a job was refused")
    async for change in client.events(after=cursor):
        if change.state == "succeeded":
            waiting.discard(change.job)
            if not waiting:
                break
    return count / (time.perf_counter() - began)


async def _newest(client: AsyncClient) -> str:
    """The cursor behind the newest event: that of a job just made for it."""
    job = await client.submit({"steps": [{"command": ["true"]}], "requirements": SMALL})
    async for change in client.events(after="0"):
        if change.job == job.id and change.state == "succeeded":
            return change.cursor
    raise RuntimeError("the event feed ended")


async def many_jobs_on_postgres(*, count: int, rounds: int = 3) -> Comparison:
    async with throwaway_postgres() as server:
        return await many_jobs(count=count, rounds=rounds, ledger_url=server.new_database())


async def wake_across_services(*, rounds: int) -> Comparison:
    """Submit until claimed, by the clock of the database: by the pool of the service that was asked, and another's."""
    async with throwaway_postgres() as server:
        url = server.new_database()
        async with (
            throwaway_service(slots=2, ledger_url=url, queue="here") as here,
            throwaway_service(slots=2, ledger_url=url, queue="there"),
            here.client() as client,
        ):
            series = await in_turns(
                lambda: dispatch_s(client, queue="here"),
                lambda: dispatch_s(client, queue="there"),
                rounds=rounds,
            )
    return compare_difference(
        "submit -> wake -> claim on the other service's pool, PostgreSQL",
        "the same service's pool",
        series,
        p50_s=0.005,
    )


async def dispatch_under_backlog(*, queued: int, rounds: int) -> Comparison:
    """Submit until claimed, on an idle service and on one with `queued` jobs of another tenant that may not run now,
    by turns."""
    async with (
        throwaway_service(slots=2) as idle_service,
        throwaway_service(slots=2) as full_service,
        idle_service.client() as idle,
        full_service.client() as full,
    ):
        await _fill(full, queued)
        series = await in_turns(lambda: dispatch_s(idle), lambda: dispatch_s(full), rounds=rounds)
    return compare_ratio(
        f"submit -> dispatch with {queued:,} jobs of another tenant queued", "idle service", series, bound=1.5
    )


async def _fill(client: AsyncClient, queued: int) -> None:
    await client.tenants.put("crowd", running_max=0)
    document = {"steps": [{"command": ["true"]}], "requirements": SMALL, "tenant": "crowd"}
    for start in range(0, queued, 1000):
        await client.submit_batch([document] * min(1000, queued - start), tenant="crowd")


async def dispatch_s(client: AsyncClient, *, queue: str = "default") -> float:
    """One small job, from its submit to its claim, by the ledger's clock."""
    job = await client.submit({"steps": [{"command": ["true"]}], "requirements": SMALL, "queue": queue})
    job = await client.wait(job.id)
    return (job.attempts[0].claimed_at - job.submitted_at).total_seconds()


async def idleness() -> Comparison:
    """Memory and cpu of a service that has run a job and now waits."""
    async with throwaway_service(slots=2) as service, service.client() as client:
        for _ in range(5):
            await _first_byte_s(client)
        before = _cpu_s(service)
        await asyncio.sleep(IDLE_S)
        share = (_cpu_s(service) - before) / IDLE_S
        rss = _rss_bytes(service)
    return Comparison(
        name="idle service",
        reference_name="-",
        reference=(0.0,),
        subject=(share,),
        goal="under 120 MiB RSS, under 1 % of a core",
        is_met=rss < RSS_BYTES_MAX and share < CPU_SHARE_MAX,
        measured=f"{rss / (1 << 20):.0f} MiB RSS (its helper processes included), {share:.2%} of a core",
    )


def _family(pid: int) -> list[int]:
    """The process and its children, at any depth."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def _rss_bytes(service: ThrowawayService) -> int:
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in _family(service.pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(service: ThrowawayService) -> float:
    ticks = 0
    for pid in _family(service.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
