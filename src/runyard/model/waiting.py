"""What is known about a job that waits: the facts that an explanation is made of."""

from __future__ import annotations

from dataclasses import dataclass

from runyard.model.job import Job
from runyard.model.pool import ClassAvailability, Pool, WaitCode
from runyard.model.queue import Queue, Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantShare:
    """One tenant's standing in a queue: `virtual_time` grows by cost/weight; the least goes next. `running` counts what
    a pool holds."""

    tenant: str
    weight: float
    virtual_time: float
    queued: int
    running: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantDepth:
    """What one tenant has in one queue. `running` counts what a pool holds."""

    queue: str
    queued: int
    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFacts:
    """One consistent snapshot. `ahead_in_tenant` counts the same tenant's jobs of that queue that go first; `shares`
    holds the tenants with ready work in the queue, least virtual time first, at most some hundreds of them."""

    now: float
    job: Job
    queue: Queue
    tenant: Tenant
    tenant_running_in_queue: int
    pools: tuple[Pool, ...]
    availability: tuple[ClassAvailability, ...]
    ahead_in_tenant: int
    shares: tuple[TenantShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitReason:
    """Why a job waits, for one pool (or None: whatever the pool). `ahead` counts for behind_others."""

    code: WaitCode
    message: str
    pool: str | None = None
    since: float | None = None
    stated_at: float | None = None
    eta_s: float | None = None
    ahead: int | None = None
