"""One history as a value: the pools, the jobs, what users do, and everything that goes wrong and when.

Faults end at QUIET_AT_S; then one service lives and must bring every job to its end.
"""

from __future__ import annotations

from dataclasses import dataclass

from runyard.dispatch.retention import Keep
from runyard.model.job import JobSpec, NewJob
from runyard.model.pool import PoolSettings
from runyard.model.queue import QueueSettings, TenantSettings
from runyard.testing.plays import Play

QUIET_AT_S = 60.0
QUEUES = ("default", "other")
TENANTS = ("ann", "bob", "cyd")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """`plays` is what each attempt's command does, the last one again for all after it."""

    at: float
    new: NewJob
    plays: tuple[Play, ...]

    def play(self, number: int) -> Play:
        return self.plays[min(number, len(self.plays)) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPool:
    """`services` have it in their config, until each is started anew without it at `dropped_at`. Where it is far, calls
    to its places go wrong and what is settled is kept for a while; where it is not, one service has it. The places of
    a fleet are machines."""

    settings: PoolSettings
    services: frozenset[int]
    is_far: bool
    is_fleet: bool = False
    dropped_at: float | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    def could_run(self, spec: JobSpec) -> bool:
        """Whether it could, idle. Said once more, by other words than the service's."""
        needs, has = spec.requirements, self.settings.budget
        is_served = "*" in self.settings.queues or spec.queue in self.settings.queues
        is_enough = needs.cpu_millis <= has.cpu_millis and needs.memory_bytes <= has.memory_bytes
        return is_served and is_enough and needs.isolation <= self.settings.isolation


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something a user or operator does. `what` names it for users.py; `job` is an index into the jobs, `number`
    chooses a queue and a pool."""

    at: float
    what: str
    job: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Whatever runs in a pool dies in silence, and `told_after_s` later an operator gives the pool up (`pool forget`).
    `is_final`: nothing will ever be there again."""

    at: float
    pool: str
    told_after_s: float
    is_final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """One of the machines cannot call in for `lasts_s`, or vanishes (None). `number` chooses which."""

    at: float
    number: int
    lasts_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A service dies for good before the faults end."""

    at: float
    service: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A service stops at its call number `at_call` to ledger or place (of those named `call`, where it is set), before
    it or after it, whatever it awaits: for good, to be started anew `lasts_s` later, or (`is_pause`) to go on then
    where it stood."""

    service: int
    call: str | None
    at_call: int
    is_after: bool
    is_pause: bool
    lasts_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A service that cannot reach the ledger for a while."""

    service: int
    begins: float
    ends: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """A wall clock is set: that of a service, or the ledger's (-1)."""

    at: float
    service: int
    by_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often a call goes wrong, of a hundred."""

    ledger: int
    place: int
    outcome_lag_s: float
    listing_lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    seed: int
    services: int
    pools: tuple[PlannedPool, ...]
    queues: tuple[QueueSettings, ...]
    tenants: tuple[TenantSettings, ...]
    jobs: tuple[PlannedJob, ...]
    actions: tuple[Action, ...]
    stops: tuple[Stop, ...]
    outages: tuple[Outage, ...]
    jumps: tuple[Jump, ...]
    losses: tuple[Loss, ...]
    deaths: tuple[Death, ...]
    mishaps: tuple[Mishap, ...]
    rates: Rates
    keep: Keep | None
    survivor: int

    @property
    def lasting_pools(self) -> tuple[PlannedPool, ...]:
        """Those that are there when all is over."""
        return tuple(one for one in self.pools if self.survivor in one.services and one.dropped_at is None)
