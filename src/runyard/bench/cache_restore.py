"""What a named cache costs: restored into a job's workspace, against `cp -a` of the same files on the same disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

from runyard.bench.comparing import Comparison, compare_ratio, in_turns
from runyard.bench.direct import DirectSandbox
from runyard.model.job import JobSpec, NamedCache, Step
from runyard.model.requirements import Requirements

FILES, FILE_BYTES = 2000, 50_000
_CACHE = (NamedCache(key="bench", path="dependencies"),)
_NEEDS = Requirements(cpu_millis=1000, memory_bytes=512 << 20)
_FILL = (
    "mkdir dependencies && cd dependencies"
    f" && head -c {FILES * FILE_BYTES} /dev/urandom | split -a 4 -b {FILE_BYTES} - file"
)


async def cache_restore(*, rounds: int) -> Comparison:
    """100 MB in 2,000 files; the time of the phase `cache`, which holds finding, verifying and unpacking."""
    async with DirectSandbox() as direct:
        original, copy = direct.folder / "original", direct.folder / "copy"
        await direct.run(_job(_FILL))
        await asyncio.to_thread(_fill, original)

        async def copied() -> float:
            await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec("cp", "-a", str(original), str(copy))
            await process.wait()
            return time.perf_counter() - began

        async def restored() -> float:
            phases = await direct.run(_job("true"))
            return phases["running"] - phases["cache"]

        series = await in_turns(copied, restored, rounds=rounds)
    return compare_ratio(
        "named cache of 100 MB in 2,000 files, restored",
        "`cp -a` of the same files",
        series,
        bound=2.0,
    )


def _fill(folder: Path) -> None:
    folder.mkdir()
    for number in range(FILES):
        (folder / f"file{number:04d}").write_bytes(os.urandom(FILE_BYTES))


def _job(script: str) -> JobSpec:
    step = Step(name="step-1", command=("/bin/sh", "-ec", script))
    return JobSpec(steps=(step,), requirements=_NEEDS, cache=_CACHE)
