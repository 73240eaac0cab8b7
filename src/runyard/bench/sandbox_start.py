"""What full isolation costs here: an attempt of `true` against bare bubblewrap with the same flags and binds."""

from __future__ import annotations

from runyard.bench.comparing import Comparison, compare_ratio
from runyard.bench.direct import DirectSandbox


async def sandbox_start(*, rounds: int) -> Comparison:
    async with DirectSandbox() as direct:
        await direct.bench.measure_times(3)  # warms up
        times = await direct.bench.measure_times(rounds)
    series = (
        tuple(each / 1000 for each in times.reference_ms),
        tuple(each / 1000 for each in times.attempt_ms),
    )
    return compare_ratio(
        "sandbox start, full isolation with limits and workspace",
        "bare `bwrap` with the same flags and binds",
        series,
        bound=2.0,
    )


async def sandbox_rate(*, starts: int) -> Comparison:
    """Eight at a time, still without a service."""
    async with DirectSandbox() as direct:
        rates = await direct.bench.measure_rates(concurrency=8, starts=starts)
    return compare_ratio(
        "sandbox starts, 8 at a time, without a service",
        "bare `bwrap`, 8 at a time",
        ((rates.reference_per_s,), (rates.attempt_per_s,)),
        bound=0.7,
        kind="at least",
        note=f"{starts} starts",
    )
