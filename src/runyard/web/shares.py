"""What each queue, and each tenant of a queue, should have of what runs, beside what it has and received. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runyard.model.queue import Queue
from runyard.model.waiting import TenantShare


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`fair`, `has` and `received` are parts of 1: by weight among those that have unfinished jobs now, of what runs
    now, and of what was received lately. No weight and no fair share: it has nothing unfinished now. None was received:
    by nobody."""

    tenant: str
    weight: float | None
    queued: int
    running: int
    fair: float | None
    has: float
    received: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStanding:
    """As of a tenant, among all queues."""

    fair: float | None
    received: float | None


def standings(shares: Sequence[TenantShare], received: Mapping[str, float]) -> tuple[Standing, ...]:
    """Of one queue: those with unfinished jobs, in their order, then those that only received, the most first.
    `received` is in any unit."""
    weights = sum(share.weight for share in shares) or 1.0
    running = sum(share.running for share in shares) or 1
    parts = parts_of(received)
    busy = [
        Standing(
            tenant=share.tenant,
            weight=share.weight,
            queued=share.queued,
            running=share.running,
            fair=share.weight / weights,
            has=share.running / running,
            received=_part(parts, share.tenant),
        )
        for share in shares
    ]
    known = {share.tenant for share in shares}
    done = sorted((tenant for tenant in parts if tenant not in known), key=lambda one: (-parts[one], one))
    idle = [
        Standing(tenant=name, weight=None, queued=0, running=0, fair=None, has=0.0, received=parts[name])
        for name in done
    ]
    return (*busy, *idle)


def queue_standings(queues: Iterable[Queue], received: Mapping[str, float]) -> Mapping[str, QueueStanding]:
    """By name. A paused queue asks for nothing."""
    listed = list(queues)
    asking = {queue.settings.name: queue.settings.weight for queue in listed if _asks(queue)}
    weights = sum(asking.values()) or 1.0
    parts = parts_of(received)
    return {
        name: QueueStanding(
            fair=asking[name] / weights if name in asking else None,
            received=_part(parts, name),
        )
        for name in (queue.settings.name for queue in listed)
    }


def _asks(queue: Queue) -> bool:
    return not queue.settings.is_paused and queue.queued + queue.starting + queue.running > 0


def parts_of(amounts: Mapping[str, float]) -> Mapping[str, float]:
    """Those above nothing, as parts of their sum."""
    whole = sum(amounts.values())
    return {name: amount / whole for name, amount in amounts.items() if amount > 0}


def _part(parts: Mapping[str, float], name: str) -> float | None:
    return parts.get(name, 0.0) if parts else None
