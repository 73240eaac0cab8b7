"""`runyard bench`: what this machine does, each number against a reference taken in the same run."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from runyard.bench.comparing import Comparison

    Measure: TypeAlias = Callable[[], Awaitable[Comparison | Sequence[Comparison]]]


def bench(*names: str, rounds: int = 20, short: bool = False, json_: bool = False) -> int:
    """Measure this machine: all of it, or what is named of: start, start-rate, first-byte, rate, rate-postgres,
    backlog, image, image-steps, image-burst, claim, claim-postgres, wake, takeover, pages, pages-postgres,
    viewers, news, histories, survival, idle, registry-cache, registry-cache-cold, workspace, workspaces, cache,
    secrets, docker, docker-rate (these two need a daemon).

    Each measure starts what it needs for itself, services and PostgreSQL, on free ports and in folders that are removed
    afterwards.

    Parameters
    ----------
    names
        What to measure; all when none is named.
    rounds
        How many samples of each latency; goals are judged on 20 and more.
    short
        Smaller numbers of jobs, histories and kills, for a first impression.
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
        for result in asyncio.run(_awaited(measures[name])):
            print(json.dumps(result.row()) if json_ else _line(result), flush=True)
    return 0


async def _awaited(measure: Measure) -> Sequence[Comparison]:
    result = await measure()
    return result if isinstance(result, Sequence) else [result]


def _measures(*, rounds: int, short: bool) -> dict[str, Measure]:
    from runyard.bench import (
        cache_restore,
        claims,
        docker,
        histories,
        image_measures,
        job_pages,
        registry_cache,
        sandbox_start,
        secrets,
        service_measures,
        survival,
        takeover,
        viewers,
        workspace,
    )

    waiting = 20_000 if short else 1_000_000
    return {
        "start": lambda: sandbox_start.sandbox_start(rounds=rounds),
        "start-rate": lambda: sandbox_start.sandbox_rate(starts=160 if short else 800),
        "first-byte": lambda: service_measures.first_byte(rounds=rounds),
        "rate": lambda: service_measures.many_jobs(count=200 if short else 1000),
        "rate-postgres": lambda: service_measures.many_jobs_on_postgres(count=200 if short else 1000),
        "backlog": lambda: service_measures.dispatch_under_backlog(
            queued=2000 if short else 100_000, rounds=rounds
        ),
        "claim": lambda: claims.claims_on_sqlite(queued=waiting, rounds=rounds),
        "claim-postgres": lambda: claims.claims_on_postgres(queued=waiting, rounds=rounds),
        "wake": lambda: service_measures.wake_across_services(rounds=rounds),
        "pages": lambda: job_pages.on_sqlite(jobs=waiting, rounds=rounds),
        "pages-postgres": lambda: job_pages.on_postgres(jobs=waiting, rounds=rounds),
        "viewers": lambda: viewers.dispatch_under_viewers(rounds=rounds),
        "news": lambda: viewers.news_to_viewers(rounds=rounds),
        "histories": lambda: histories.histories(count=60 if short else 300),
        "image": lambda: image_measures.image_first_byte(rounds=rounds),
        "image-steps": lambda: image_measures.further_step(rounds=rounds),
        "image-burst": lambda: image_measures.image_burst(rounds=1 if short else 3),
        "survival": lambda: survival.survival(kills=3 if short else 100),
        "idle": service_measures.idleness,
        "takeover": lambda: takeover.takeover(rounds=1 if short else 5, lease_s=3.0 if short else 15.0),
        "registry-cache": lambda: registry_cache.warm_blob(rounds=rounds),
        "registry-cache-cold": registry_cache.cold_pulls,
        "workspace": lambda: workspace.second_workspace(rounds=rounds),
        "workspaces": lambda: workspace.workspaces_at_once(rounds=max(3, rounds // 4)),
        "secrets": lambda: secrets.jobs_with_a_secret(rounds=3 if short else rounds),
        "docker": lambda: docker.cold_first_byte(rounds=rounds),
        "docker-rate": lambda: docker.cold_rate(rounds=1 if short else max(3, rounds // 4)),
        "cache": lambda: cache_restore.cache_restore(rounds=3 if short else rounds),
    }


def _line(result: Comparison) -> str:
    verdict = "met" if result.is_met else "MISSED"
    note = f" ({result.note})" if result.note else ""
    return (
        f"{result.name}\n    {result.measured}{note}\n    reference: {result.reference_name}; "
        f"goal: {result.goal}; {verdict}"
    )
