"""Pools, their owners, and what they answer when asked for room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runyard.model.requirements import Isolation, Requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Resources that attempts take from and give back. `disk_bytes` None is unbounded."""

    cpu_millis: int
    memory_bytes: int
    disk_bytes: int | None = None


class WaitCode(StrEnum):
    """Why a queued job waits: the closed list of INTERFACE.md."""

    BEHIND_OTHERS = "behind_others"
    POOL_FULL = "pool_full"
    POOL_PAUSED = "pool_paused"
    POOL_UNHEALTHY = "pool_unhealthy"
    PLACE_STARTING = "place_starting"
    NO_OWNER = "no_owner"
    QUOTA = "quota"
    THROTTLED = "throttled"
    QUEUE_LIMIT = "queue_limit"
    TENANT_LIMIT = "tenant_limit"
    QUEUE_PAUSED = "queue_paused"
    RETRY_BACKOFF = "retry_backoff"
    NO_POOL = "no_pool"


class AvailabilityKind(StrEnum):
    NOW = "now"
    SOON = "soon"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """A pool's answer to "could you take this class?". `room` counts attempts it takes at once (now); `eta_s` is None
    where unknown, never invented; `why` is for the user to read."""

    kind: AvailabilityKind
    room: int = 0
    code: WaitCode | None = None
    why: str = ""
    eta_s: float | None = None


def now(room: int) -> Availability:
    return Availability(kind=AvailabilityKind.NOW, room=room)


def soon(code: WaitCode, why: str, eta_s: float | None = None) -> Availability:
    return Availability(kind=AvailabilityKind.SOON, code=code, why=why, eta_s=eta_s)


def never(why: str) -> Availability:
    return Availability(kind=AvailabilityKind.NEVER, code=WaitCode.NO_POOL, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAvailability:
    """What the owner of a pool last answered for a class of jobs, stored so that a waiting job can be explained."""

    pool: str
    class_key: str
    availability: Availability
    since: float
    stated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """A pool's shape as configured. `queues` are names, or ("*",) for all; `isolation` is what it gives."""

    name: str
    provider: str
    slots: int
    budget: Budget
    isolation: Isolation
    queues: tuple[str, ...] = ("*",)
    labels: Mapping[str, str] = field(default_factory=dict)
    has_network_open: bool = True  # whether its places can give `network: open`
    has_network_allow: bool = False  # whether its places can give a list of where to go
    has_images: bool = False  # whether steps can run in an image there
    has_services: bool = False  # whether a job's services can run beside its steps
    host: str | None = None  # set for a pool that is bound to one host, and owned only there
    description: str = ""  # what isolates here, in plain words


class PoolHealth(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNOWNED = "unowned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool as the ledger holds it. `owner` is None while nobody's lease lasts."""

    settings: PoolSettings
    epoch: int = 0
    owner: str | None = None
    lease_until: float | None = None
    is_paused: bool = False
    health: PoolHealth = PoolHealth.UNOWNED
    health_message: str = ""
    starting: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write for a pool: its name at the epoch of one ownership. A write with an old one raises Fenced."""

    pool: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDemand:
    """Waiting work of one class in the queues of a pool, as one snapshot."""

    class_key: str
    requirements: Requirements
    queued: int
    oldest_queued_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One snapshot of what waits for a pool and what it holds."""

    at: float
    classes: tuple[ClassDemand, ...] = ()
    starting: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What a provider has and is getting, after it acted on a Demand."""

    slots: int
    idle: int = 0
    starting: int = 0
    draining: int = 0
