"""How many histories of faults the simulator plays a second: what a night of looking for broken promises costs."""

from __future__ import annotations

import asyncio
import statistics
import time

from runyard.bench.comparing import Comparison, per_second
from runyard.testing.simulation.run import simulate

PER_SECOND_MIN = 20.0
SAMPLE = 10


async def histories(*, count: int) -> Comparison:
    """`count` seeds, one after the other on one core, in samples of ten of which the median counts. In a thread, for a
    history brings a loop of its own."""
    rates, broken = await asyncio.to_thread(_play, count)
    rate = statistics.median(rates)
    return Comparison(
        name="fault histories on one core",
        reference_name="-",
        reference=(0.0,),
        subject=tuple(rates),
        goal="at least 20 a second",
        is_met=rate >= PER_SECOND_MIN and not broken,
        measured=f"{per_second(rate)}, {per_second(min(rates))} to {per_second(max(rates))}",
        note=f"{count} histories" + (f"; seeds that broke a promise: {broken}" if broken else ""),
    )


def _play(count: int) -> tuple[list[float], list[int]]:
    rates, broken = [], []
    for first in range(0, count, SAMPLE):
        seeds = range(first, min(first + SAMPLE, count))
        began = time.perf_counter()
        broken += [seed for seed in seeds if simulate(seed).violation is not None]
        rates.append(len(seeds) / (time.perf_counter() - began))
    return rates, broken
