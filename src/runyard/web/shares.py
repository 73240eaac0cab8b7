"""What each tenant of a queue should have of what runs, beside what it has. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runyard.model.waiting import TenantShare


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`fair` and `has` are parts of 1: by weight among those that have unfinished jobs, and of what runs now."""

    tenant: str
    weight: float
    queued: int
    running: int
    fair: float
    has: float


def standings(shares: Sequence[TenantShare]) -> tuple[Standing, ...]:
    weights = sum(share.weight for share in shares) or 1.0
    running = sum(share.running for share in shares) or 1
    return tuple(
        Standing(
            tenant=share.tenant,
            weight=share.weight,
            queued=share.queued,
            running=share.running,
            fair=share.weight / weights,
            has=share.running / running,
        )
        for share in shares
    )
