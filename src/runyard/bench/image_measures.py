"""What an image costs: a job in one that is there, each further step, and very many jobs of one that is not."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from runyard.bench.comparing import Comparison, compare_ratio, in_turns
from runyard.bench.direct import DirectSandbox
from runyard.bench.image_registry import ImageRegistry, image_registry
from runyard.bench.throwaway import throwaway_service
from runyard.sdk import AsyncClient
from runyard.sdk.following import LogChunk

SMALL = {"cpu": 1, "memory": "64Mi"}  # a share of a core would be what is measured
STEPS = 21
BURST = 32
NEW_BYTES = 128 << 20  # packed; the image of a language with its tools has that and more


async def image_first_byte(*, rounds: int) -> Comparison:
    """Submit until the first byte, in an image that is present, against the same job without one."""
    with image_registry() as registry:
        name = registry.add("present")
        async with throwaway_service(slots=2, pool=_pool(registry)) as service, service.client() as client:
            series = await in_turns(
                lambda: _first_byte_s(client, {}),
                lambda: _first_byte_s(client, {"image": name}),
                rounds=rounds,
            )
    return compare_ratio(
        "image present: submit -> first byte of the command",
        "the same job without an image",
        series,
        bound=1.3,
    )


async def further_step(*, rounds: int) -> Comparison:
    """What each further step of a job in an image takes, from its phases, against a bare bubblewrap start."""
    with image_registry() as registry:
        name = registry.add("present")
        async with (
            throwaway_service(slots=2, pool=_pool(registry)) as service,
            service.client() as client,
            DirectSandbox() as direct,
        ):

            async def reference() -> float:
                times = await direct.bench.measure_times(5)
                return statistics.median(times.reference_ms) / 1000

            series = await in_turns(reference, lambda: _step_s(client, name), rounds=rounds)
    return compare_ratio(
        f"each further step of a job in an image ({STEPS - 1} steps)",
        "bare `bwrap` with the same flags and binds",
        series,
        bound=1.5,
    )


async def image_burst(*, rounds: int) -> Comparison:
    """Jobs of one image that nobody has, all at once, until the last has started; against one job of another."""
    with image_registry() as registry:
        async with (
            throwaway_service(slots=BURST, pool=_pool(registry)) as service,
            service.client() as client,
        ):
            numbers = iter(range(1000))

            async def started_s(jobs: int) -> float:
                registry.forget()
                name = registry.add(f"new{next(numbers)}", data_bytes=NEW_BYTES)
                return await _all_started_s(client, name, jobs)

            await started_s(1)  # busybox, which all of them share, is there from now on
            series = await in_turns(lambda: started_s(1), lambda: started_s(BURST), rounds=rounds)
    most = max(count for digest, count in registry.downloads.items() if digest in registry.seen)
    return compare_ratio(
        f"{BURST} jobs of one new image at once, until all have started",
        f"one job of a new image ({NEW_BYTES >> 20} MiB)",
        series,
        bound=1.5,
        note=f"each blob was downloaded {most} x",
    )


def _pool(registry: ImageRegistry) -> str:
    """Room for all at once: they start, and hardly run."""
    return f'cpu = {BURST}\nmemory = "8Gi"\n[[pools.local.registries]]\nhost = "{registry.address}"\nprivate = true\n'


async def _first_byte_s(client: AsyncClient, extra: dict[str, Any]) -> float:
    began = time.perf_counter()
    document = {"steps": [{"command": ["echo", "x"]}], "requirements": SMALL, **extra}
    job = await client.submit(document)
    async for item in client.follow_log(job.id):
        if isinstance(item, LogChunk):
            elapsed = time.perf_counter() - began
            await client.wait(job.id)
            return elapsed
    raise RuntimeError(f"job {job.id} printed nothing")


async def _step_s(client: AsyncClient, image: str) -> float:
    steps = [{"name": f"s{number}", "command": ["true"]} for number in range(STEPS)]
    job = await client.submit({"steps": steps, "requirements": SMALL, "image": image})
    job = await client.wait(job.id)
    phases = job.attempts[0].phases
    took = phases[f"step:s{STEPS - 1}"] - phases["step:s0"]
    return took.total_seconds() / (STEPS - 1)


async def _all_started_s(client: AsyncClient, image: str, jobs: int) -> float:
    document = {"steps": [{"command": ["true"]}], "requirements": SMALL, "image": image}
    items = await client.submit_batch([document] * jobs)
    done = await asyncio.gather(*(client.wait(str(item.id)) for item in items))
    if any(job.state != "succeeded" for job in done):
        raise RuntimeError(f"a job did not succeed: {next(job.reason for job in done if job.reason)}")
    started = max(job.attempts[0].phases["running"] for job in done)
    return (started - min(job.submitted_at for job in done)).total_seconds()
