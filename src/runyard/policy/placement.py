"""Which pool may take what: the fit of requirements to a pool's shape, and the room left in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runyard.model.egress import NETWORK_ALLOW, NETWORK_OPEN
from runyard.model.pool import (
    Availability,
    AvailabilityKind,
    Budget,
    PoolSettings,
    WaitCode,
    never,
    now,
    soon,
)
from runyard.model.requirements import Requirements

ARCH_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Kernel's name -> the one that images and places use; users write either."""


def misfit(requirements: Requirements, pool: PoolSettings) -> str | None:
    """Why the pool could never take this class however idle it is, in words for the user; None when it could."""
    if pool.slots <= 0:
        return f"pool '{pool.name}' cannot run anything: {pool.description or 'it has no slots'}"
    budget = pool.budget
    wanted = requirements.isolation
    if wanted > pool.isolation:
        return f"pool '{pool.name}' isolates as {pool.isolation.word}, the job demands {wanted.word}"
    if requirements.cpu_millis > budget.cpu_millis:
        return (
            f"pool '{pool.name}' has {budget.cpu_millis / 1000:g} cores to give, "
            f"the job demands {requirements.cpu_millis / 1000:g}"
        )
    if requirements.memory_bytes > budget.memory_bytes:
        return (
            f"pool '{pool.name}' has {_mebibytes(budget.memory_bytes)} of memory to give, "
            f"the job demands {_mebibytes(requirements.memory_bytes)}"
        )
    if (
        requirements.disk_bytes
        and budget.disk_bytes is not None
        and requirements.disk_bytes > budget.disk_bytes
    ):
        return (
            f"pool '{pool.name}' has {_mebibytes(budget.disk_bytes)} of disk to give, "
            f"the job demands {_mebibytes(requirements.disk_bytes)}"
        )
    if requirements.network == NETWORK_ALLOW and not pool.has_network_allow:
        return f"pool '{pool.name}' cannot keep a job to a list of names and networks (network.allow); a local pool can"
    if requirements.network == NETWORK_OPEN and not pool.has_network_open:
        return f"pool '{pool.name}' cannot give a network, the job demands network {requirements.network}"
    if requirements.needs_images and not pool.has_images:
        return f"pool '{pool.name}' cannot run a step in an image, and the job names one"
    if requirements.needs_services and not pool.has_services:
        return f"pool '{pool.name}' cannot run services beside a job, and the job has some; a local pool can"
    return _label_misfit(requirements, pool)


def _label_misfit(requirements: Requirements, pool: PoolSettings) -> str | None:
    offered = pool.labels
    for key, value in sorted(wanted_labels(requirements).items()):
        if offered.get(key) != value:
            has = f"{key}={offered[key]}" if key in offered else f"no label {key}"
            return f"pool '{pool.name}' has {has}, the job demands {key}={value}"
    return None


def wanted_labels(requirements: Requirements) -> Mapping[str, str]:
    """The labels a place must carry; `arch` and `os` are labels like the others, an arch by its container name."""
    wanted = dict(requirements.labels)
    if requirements.arch is not None:
        wanted["arch"] = ARCH_NAMES.get(requirements.arch, requirements.arch)
    if requirements.os is not None:
        wanted["os"] = requirements.os
    return wanted


def serves(pool: PoolSettings, queue: str) -> bool:
    return "*" in pool.queues or queue in pool.queues


def free_budget(budget: Budget, held: Iterable[Requirements]) -> Budget:
    """What is left of the budget beside the attempts that hold these requirements; never below zero."""
    cpu, memory, disk = budget.cpu_millis, budget.memory_bytes, budget.disk_bytes
    for requirements in held:
        cpu -= requirements.cpu_millis
        memory -= requirements.memory_bytes
        if disk is not None:
            disk -= requirements.disk_bytes or 0
    return Budget(
        cpu_millis=max(cpu, 0),
        memory_bytes=max(memory, 0),
        disk_bytes=None if disk is None else max(disk, 0),
    )


def free_slots(slots: int, held: Iterable[int]) -> tuple[int, ...]:
    """The slot numbers, from 0, that no attempt holds."""
    taken = set(held)
    return tuple(slot for slot in range(slots) if slot not in taken)


def room_in(budget: Budget, slots: int, requirements: Requirements) -> int:
    """How many attempts of this class fit at once into what is free."""
    fits = [
        slots,
        budget.cpu_millis // requirements.cpu_millis,
        budget.memory_bytes // requirements.memory_bytes,
    ]
    if budget.disk_bytes is not None and requirements.disk_bytes:
        fits.append(budget.disk_bytes // requirements.disk_bytes)
    return max(min(fits), 0)


def availability(
    requirements: Requirements, pool: PoolSettings, *, free: Budget, slots_free: int, place: Availability
) -> Availability:
    """The pool's answer: the place's own one, bounded by the slots and the budget that attempts hold now."""
    reason = misfit(requirements, pool)
    if reason is not None:
        return never(reason)
    if place.kind is not AvailabilityKind.NOW:
        return place
    room = min(place.room, room_in(free, slots_free, requirements))
    if room > 0:
        return now(room)
    if slots_free <= 0:
        return soon(WaitCode.POOL_FULL, f"all {pool.slots} slots of pool '{pool.name}' are in use")
    return soon(
        WaitCode.POOL_FULL,
        f"pool '{pool.name}' has {free.cpu_millis / 1000:g} cores and {_mebibytes(free.memory_bytes)} free, the job "
        f"takes {requirements.cpu_millis / 1000:g} and {_mebibytes(requirements.memory_bytes)}",
    )


def reserved_class(
    waiting: Mapping[str, float], answers: Mapping[str, Availability], *, now_at: float
) -> str | None:
    """The class that the pool must leave room for, or None.

    Small jobs could fill each gap before a big one fits. So when the class that has waited longest is one that fits
    an emptier pool, and it has waited for RESERVE_AFTER_S, the pool takes nothing else until it fits. `waiting` maps
    a class to the time its oldest job became queued.
    """
    starved = [
        (since, key)
        for key, since in waiting.items()
        if now_at - since >= RESERVE_AFTER_S and answers[key].code is WaitCode.POOL_FULL
    ]
    if not starved:
        return None
    since, key = min(starved)
    takeable = [
        waiting[other]
        for other, answer in answers.items()
        if answer.kind is AvailabilityKind.NOW and other in waiting
    ]
    return key if not takeable or since < min(takeable) else None


RESERVE_AFTER_S = 60.0


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
