"""What dispatch tells of its work, for metrics and charts: moments as they happen, and nothing that could fail.

Each call is a few dictionary additions in the loop's own thread; what listens must neither wait nor raise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from runyard.model.job import JobState
from runyard.model.outcome import Outcome
from runyard.model.pool import Availability

STEP = "step"
OTHER = "other"
START_PHASES = ("claimed", "preparing", "workspace", "image", "cache", "services")
"""What goes by between the claim and the first step; `claimed` is the time until the place says anything."""

PHASES = (*START_PHASES, STEP, "collecting", OTHER)
"""The closed list: all steps count as `step`, and what only one provider knows as `other`."""


CacheUse = tuple[str, str]
"""(cache, result)."""

CACHE_USES: Mapping[str, tuple[str, ...]] = {
    "image_layers": ("present", "pulled", "joined"),
    "git_trees": ("hit", "made"),
    "git_mirrors": ("current", "fetched"),
    "named": ("restored", "missed", "saved", "failed"),
}
"""The closed list of what is kept between attempts, and how an attempt had it; what only one provider knows is
`other`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempt:
    """One attempt whose outcome was accepted. `phases` holds seconds by name from PHASES; `start_s` is the time from
    the claim to the first step (None: there was none); `state` is what became of the job (None: it is gone);
    `cache_uses` holds counts by words from CACHE_USES."""

    pool: str
    queue: str
    outcome: Outcome
    state: JobState | None
    phases: Mapping[str, float]
    start_s: float | None
    cache_uses: Mapping[CacheUse, int] = field(default_factory=dict)


class Telemetry(Protocol):
    def attempt_claimed(self, pool: str, queue: str, *, waited_s: float) -> None:
        """`waited_s`: since the job was queued, for this attempt."""
        ...

    def attempt_ended(self, ended: EndedAttempt) -> None: ...

    def pool_answered(self, pool: str, answers: Collection[Availability]) -> None:
        """What a pool said of each class that waits, at one look."""
        ...

    def resources_pruned(self, pool: str, *, destroyed: int, kept: int) -> None:
        """One sweep: unknown resources that went, and those that were kept for now."""
        ...

    def lease_lost(self, pool: str) -> None: ...

    def ledger_unavailable(self, pool: str) -> None: ...


class NoTelemetry:
    """Nobody listens."""

    def attempt_claimed(self, pool: str, queue: str, *, waited_s: float) -> None: ...

    def attempt_ended(self, ended: EndedAttempt) -> None: ...

    def pool_answered(self, pool: str, answers: Collection[Availability]) -> None: ...

    def resources_pruned(self, pool: str, *, destroyed: int, kept: int) -> None: ...

    def lease_lost(self, pool: str) -> None: ...

    def ledger_unavailable(self, pool: str) -> None: ...


class SharedTelemetry:
    """Several listeners as one."""

    def __init__(self, listeners: Sequence[Telemetry]) -> None:
        self._listeners = tuple(listeners)

    def attempt_claimed(self, pool: str, queue: str, *, waited_s: float) -> None:
        for listener in self._listeners:
            listener.attempt_claimed(pool, queue, waited_s=waited_s)

    def attempt_ended(self, ended: EndedAttempt) -> None:
        for listener in self._listeners:
            listener.attempt_ended(ended)

    def pool_answered(self, pool: str, answers: Collection[Availability]) -> None:
        for listener in self._listeners:
            listener.pool_answered(pool, answers)

    def resources_pruned(self, pool: str, *, destroyed: int, kept: int) -> None:
        for listener in self._listeners:
            listener.resources_pruned(pool, destroyed=destroyed, kept=kept)

    def lease_lost(self, pool: str) -> None:
        for listener in self._listeners:
            listener.lease_lost(pool)

    def ledger_unavailable(self, pool: str) -> None:
        for listener in self._listeners:
            listener.ledger_unavailable(pool)


def phase_seconds(claimed_at: float, phases: Mapping[str, float], ended_at: float) -> dict[str, float]:
    """How long each phase lasted, by names from PHASES: a phase ends where the next one begins, the last with the
    attempt. Clocks of several hosts are in it: what would be negative counts as nothing."""
    begins = sorted(((at, _phase_of(name)) for name, at in phases.items()), key=lambda one: one[0])
    moments = [(claimed_at, "claimed"), *begins]
    ends = [at for at, _ in begins] + [ended_at]
    lasted: dict[str, float] = {}
    for (begin, name), end in zip(moments, ends, strict=True):
        lasted[name] = lasted.get(name, 0.0) + max(0.0, end - begin)
    return lasted


def cache_use(cache: str, result: str) -> CacheUse:
    return (cache, result) if result in CACHE_USES.get(cache, ()) else (OTHER, OTHER)


def start_seconds(claimed_at: float, phases: Mapping[str, float]) -> float | None:
    """From the claim to the first step; None where none began."""
    steps = [at for name, at in phases.items() if _phase_of(name) == STEP]
    return max(0.0, min(steps) - claimed_at) if steps else None


def _phase_of(name: str) -> str:
    if name == "running" or name.startswith("step:"):
        return STEP
    return name if name in PHASES else OTHER
