"""What a secret and its masking cost: the same job with one and without, over HTTP; the masker alone, on bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from runyard.bench.comparing import Comparison, compare_ratio, in_turns
from runyard.bench.throwaway import throwaway_service
from runyard.sdk import AsyncClient

NAME, VALUE = "BENCH_TOKEN", "ghp_0123456789abcdefghijklmnopqrstuvwxyz"
SMALL = {"cpu": "1", "memory": "256Mi"}
_LINE = "2026-11-24T17:14:00 INFO some.module: doing the thing number 12345, and nothing of it is secret"
OUTPUTS = {
    "a small job": "echo done",
    "1 MB of output": f"yes '{_LINE}' | head -c 1000000",
    "100 MB of output": f"yes '{_LINE}' | head -c 100000000",
}


async def jobs_with_a_secret(*, rounds: int) -> Sequence[Comparison]:
    """From the submit to the outcome. The secret is used by none of the lines: what is looked for and not found."""
    results = []
    async with throwaway_service(slots=2) as service, service.client() as client:
        await client.secrets.put(NAME, VALUE)
        for name, script in OUTPUTS.items():
            series = await in_turns(
                lambda script=script: _job_s(client, script, []),  # type: ignore[misc]
                lambda script=script: _job_s(client, script, [NAME]),  # type: ignore[misc]
                rounds=rounds if "100" not in name else max(3, rounds // 4),
            )
            results.append(
                compare_ratio(f"a job with a secret, masked: {name}", "the same without", series, bound=1.1)
            )
    return results


async def _job_s(client: AsyncClient, script: str, secrets: Sequence[str]) -> float:
    began = time.perf_counter()
    job = await client.submit({"steps": [{"run": script}], "requirements": SMALL, "secrets": list(secrets)})
    ended = await client.wait(job.id)
    if ended.state != "succeeded":
        raise RuntimeError(f"job {job.id} is {ended.state}")
    return time.perf_counter() - began
