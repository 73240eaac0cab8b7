"""Queues and tenants: the lanes that share capacity, and for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What can be set of a queue. None is no bound. `defaults` is a part of a job document merged under each job;
    `is_configured` marks one that comes from the config file and is read-only by API."""

    name: str
    weight: float = 1.0
    running_max: int | None = None
    queued_max: int | None = None
    tenant_running_max: int | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    is_paused: bool = False
    is_configured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue with its counts, kept in the transactions that change them. `has_eligible`: some tenant has a ready job
    that no tenant's limit holds back."""

    settings: QueueSettings
    queued: int = 0
    starting: int = 0
    running: int = 0
    oldest_queued_at: float | None = None
    last_claimed_at: float | None = None
    has_eligible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSettings:
    """A tenant's share and bounds, over all queues. It exists by its first job, or by being set."""

    name: str
    weight: float = 1.0
    running_max: int | None = None
    queued_max: int | None = None
    is_configured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    settings: TenantSettings
    queued: int = 0
    running: int = 0
