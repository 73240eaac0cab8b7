"""Whether the cluster could take a class of jobs, now, soon or never. `admit` is pure; its words are for users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runyard.model.pool import Availability, PoolSettings, WaitCode, never, now, soon
from runyard.model.requirements import Requirements
from runyard.policy.placement import misfit
from runyard.providers.kubernetes.quotas import quota_room


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """A class of which an attempt waits in the cluster for want of room, in the cluster's own words."""

    code: WaitCode
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What was last seen of it. `quotas` are the namespace's, empty where they may not be read; `missing` names what
    the pool's options ask for and the cluster does not have; `stuck` is by class."""

    quotas: tuple[Mapping[str, Any], ...] = ()
    missing: str = ""
    stuck: Mapping[str, Stuck] = field(default_factory=dict)


def admit(
    requirements: Requirements, *, pool: PoolSettings, facts: ClusterFacts, priority_class: str | None = None
) -> Availability:
    """Slots and what runs now are dispatch's to count."""
    impossible = misfit(requirements, pool)
    if impossible is not None:
        return never(impossible)
    if facts.missing:
        return never(f"pool '{pool.name}': {facts.missing}")
    quota = quota_room(facts.quotas, requirements, priority_class=priority_class)
    if quota.is_never:
        return never(f"pool '{pool.name}': {quota.words}")
    if quota.room == 0:
        return soon(WaitCode.QUOTA, f"pool '{pool.name}': {quota.words}")
    stuck = facts.stuck.get(requirements.class_key())
    if stuck is not None:
        return soon(stuck.code, f"pool '{pool.name}': {stuck.words}")
    return now(pool.slots if quota.room is None else min(pool.slots, quota.room))
