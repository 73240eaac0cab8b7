"""kill -9 while jobs run, again and again: all adopted, none run twice, no byte of a log missing or double."""

from __future__ import annotations

from runyard.bench.comparing import Comparison
from runyard.bench.throwaway import ThrowawayService, throwaway_service
from runyard.sdk import AsyncClient

JOBS = 8


async def survival(*, kills: int, job_s: float = 2.0) -> Comparison:
    """`kills` rounds of 8 jobs of `job_s` seconds, the service killed once all of them run."""
    failures: list[str] = []
    async with throwaway_service(slots=JOBS) as service:
        for round_ in range(kills):
            failures += await _round(service, round_, job_s)
    return Comparison(
        name=f"kill -9 while {JOBS} jobs of {job_s:g} s run, start again, {kills} times",
        reference_name="-",
        reference=(0.0,),
        subject=(float(len(failures)),),
        goal="all adopted, none run twice, no log byte missing or double",
        is_met=not failures,
        measured=f"{kills * JOBS - len(failures)} of {kills * JOBS} adopted whole",
        note="; ".join(failures[:3]),
    )


async def _round(service: ThrowawayService, round_: int, job_s: float) -> list[str]:
    lines = int(job_s * 20)
    script = f"i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; sleep 0.05; done"
    whole = b"".join(b"line %d\n" % number for number in range(1, lines + 1))
    document = {"steps": [{"run": script}], "requirements": {"cpu": "100m", "memory": "64Mi"}}
    async with service.client() as client:
        ids = [(await client.submit(document, id=f"kill-{round_}-{number}")).id for number in range(JOBS)]
        await _until_running(client, set(ids))
    await service.kill()
    await service.start()
    async with service.client() as client:
        return [problem for job_id in ids if (problem := await _problem(client, job_id, whole))]


async def _until_running(client: AsyncClient, waiting: set[str]) -> None:
    async for change in client.events(after="0"):
        if change.state == "running":
            waiting.discard(change.job)
            if not waiting:
                return


async def _problem(client: AsyncClient, job_id: str, whole: bytes) -> str:
    job = await client.wait(job_id, timeout_s=120)
    if job.state != "succeeded":
        return f"{job_id} is {job.state}"
    if job.attempt_count != 1:
        return f"{job_id} took {job.attempt_count} attempts"
    printed = await client.read_log(job_id)
    return "" if printed == whole else f"the log of {job_id} has {len(printed)} bytes, not {len(whole)}"
