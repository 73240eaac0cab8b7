"""What an operator should look at now, from what the ledger says of pools, queues and broken attempts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runyard.ledger.port import Claimed
from runyard.model.pool import Pool, PoolHealth
from runyard.model.queue import Queue

BROKEN_SINCE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """`address` is the page where it is seen and mended."""

    key: str
    message: str
    address: str
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenGroup:
    """Attempts of one pool that ended the same bad way. `last` is the newest of them."""

    kind: str
    message: str
    count: int
    last: Claimed


def grouped(broken: Sequence[Claimed]) -> tuple[BrokenGroup, ...]:
    """By how they ended and why, the most frequent first. `broken` is newest first."""
    counts: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], Claimed] = {}
    for claimed in broken:
        key = _how_of(claimed)
        counts[key] += 1
        last.setdefault(key, claimed)
    return tuple(
        BrokenGroup(kind=key[0], message=key[1], count=count, last=last[key])
        for key, count in counts.most_common()
    )


def _how_of(claimed: Claimed) -> tuple[str, str]:
    outcome = claimed.attempt.outcome
    assert outcome is not None  # it ended
    return outcome.kind.value, outcome.reason.message if outcome.reason else ""


def notices(pools: Iterable[Pool], queues: Iterable[Queue], broken: Sequence[Claimed]) -> tuple[Notice, ...]:
    """The worst first: who acts for nothing, who is ill, what broke, what somebody paused."""
    pools, queues = list(pools), list(queues)
    ill = [notice for pool in pools if (notice := _ill(pool)) is not None]
    paused = [_paused("pool", pool.settings.name) for pool in pools if pool.is_paused]
    paused += [_paused("queue", queue.settings.name) for queue in queues if queue.settings.is_paused]
    return (*ill, *_broken(broken), *paused)


def _ill(pool: Pool) -> Notice | None:
    name = pool.settings.name
    match pool.health:
        case PoolHealth.HEALTHY:
            return None
        case PoolHealth.UNHEALTHY:
            return Notice(
                key=f"ill-{name}",
                message=f"Pool {name} is unhealthy: {pool.health_message}",
                address=f"/pools/{name}",
                cure="its check says what is missing",
            )
        case PoolHealth.UNOWNED:
            return Notice(
                key=f"ill-{name}",
                message=f"No running service acts for pool {name}",
                address=f"/pools/{name}",
                cure="start `runyard serve` on its host, or give the pool up",
            )


def _broken(broken: Sequence[Claimed]) -> Iterable[Notice]:
    by_pool: dict[str, list[Claimed]] = {}
    for claimed in broken:
        by_pool.setdefault(claimed.attempt.pool, []).append(claimed)
    for pool, its in by_pool.items():
        for group in grouped(its):
            tried = "1 attempt was" if group.count == 1 else f"{group.count} attempts were"
            yield Notice(
                key=f"broken-{pool}-{group.last.attempt.key.resource_name}",
                message=f"{tried} {group.kind} in pool {pool} within the last hour: {group.message}",
                address=f"/pools/{pool}",
            )


def _paused(kind: str, name: str) -> Notice:
    return Notice(
        key=f"paused-{kind}-{name}",
        message=f"{kind.capitalize()} {name} is paused",
        address=f"/{kind}s/{name}",
        cure="resume it on its page",
    )
