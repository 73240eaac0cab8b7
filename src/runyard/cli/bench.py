"""`runyard bench`: what this machine does, each number against a reference taken in the same run."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runyard.bench.comparing import Comparison


def bench(*names: str, rounds: int = 20, short: bool = False, json_: bool = False) -> int:
    """Measure this machine: all, or of start, start-rate, first-byte, rate, backlog, survival, idle,
    registry-cache, registry-cache-cold what is named.

    Each measure starts a service of its own on a free port, with a data folder of its own that is removed afterwards.

    Parameters
    ----------
    names
        What to measure; all when none is named.
    rounds
        How many samples of each latency; goals are judged on 20 and more.
    short
        Smaller numbers of jobs and kills, for a first impression.
    json_
        One JSON document per line instead of a table.
    """
    measures = _measures(rounds=rounds, short=short)
    unknown = [name for name in names if name not in measures]
    if unknown:
        print(
            f"runyard: nothing to measure is named {unknown[0]!r}; choose of: {', '.join(measures)}",
            file=sys.stderr,
        )
        return 2
    for name in names or measures:
        result = asyncio.run(_awaited(measures[name]))
        print(json.dumps(result.row()) if json_ else _line(result), flush=True)
    return 0


async def _awaited(measure: Callable[[], Awaitable[Comparison]]) -> Comparison:
    return await measure()


def _measures(*, rounds: int, short: bool) -> dict[str, Callable[[], Awaitable[Comparison]]]:
    from runyard.bench import registry_cache, sandbox_start, service_measures, survival

    return {
        "start": lambda: sandbox_start.sandbox_start(rounds=rounds),
        "start-rate": lambda: sandbox_start.sandbox_rate(starts=160 if short else 800),
        "first-byte": lambda: service_measures.first_byte(rounds=rounds),
        "rate": lambda: service_measures.many_jobs(count=200 if short else 1000),
        "backlog": lambda: service_measures.dispatch_under_backlog(
            queued=2000 if short else 100_000, rounds=rounds
        ),
        "survival": lambda: survival.survival(kills=3 if short else 100),
        "idle": service_measures.idleness,
        "registry-cache": lambda: registry_cache.warm_blob(rounds=rounds),
        "registry-cache-cold": registry_cache.cold_pulls,
    }


def _line(result: Comparison) -> str:
    verdict = "met" if result.is_met else "MISSED"
    note = f" ({result.note})" if result.note else ""
    return (
        f"{result.name}\n    {result.measured}{note}\n    reference: {result.reference_name}; "
        f"goal: {result.goal}; {verdict}"
    )
