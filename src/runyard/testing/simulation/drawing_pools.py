"""The pools of a history: one that all services share, or several of different shape, isolation and owners, of which
some are dropped from the config or lose all that runs in them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random

from runyard.model.pool import Budget, PoolSettings
from runyard.model.requirements import Isolation
from runyard.testing.simulation.scenario import QUEUES, Death, Loss, Mishap, PlannedPool

FLEET = "machines"
_MEMORY_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Yard:
    pools: tuple[PlannedPool, ...]
    losses: tuple[Loss, ...] = ()
    deaths: tuple[Death, ...] = ()
    mishaps: tuple[Mishap, ...] = ()


def draw(dice: Random, *, services: int, survivor: int, is_calm: bool) -> Yard:
    """`is_calm`: no call to a place goes wrong, so that a pool of one service may be bound to its host."""
    if dice.random() < 0.4:
        settings = _settings(dice, "far", isolation=Isolation.MICROVM)
        shared = PlannedPool(
            settings=settings, services=frozenset(range(services)), is_far=services > 1 or not is_calm
        )
        return Yard(pools=(shared,))
    deaths = _deaths(dice, services=services, survivor=survivor)
    pools = tuple(_dropped(dice, pool) for pool in _pools(dice, services))
    losses = [loss for pool in pools if (loss := _loss(dice, pool, deaths)) is not None]
    mishaps = _mishaps(dice) if any(pool.is_fleet for pool in pools) else ()
    return Yard(pools=pools, losses=tuple(losses), deaths=deaths, mishaps=mishaps)


def _pools(dice: Random, services: int) -> list[PlannedPool]:
    """Each host has its own, mostly; the far ones are everybody's or one service's."""
    pools = []
    for service in range(services):
        if dice.random() < 0.6:
            settings = _several(dice, f"host-{service + 1}")
            pools.append(PlannedPool(settings=settings, services=frozenset({service}), is_far=False))
    everybody = frozenset(range(services))
    if not pools or dice.random() < 0.8:
        pools.append(PlannedPool(settings=_several(dice, "far"), services=everybody, is_far=True))
    if dice.random() < 0.3:
        settings = dataclasses.replace(_several(dice, FLEET), provider=FLEET)
        pools.append(PlannedPool(settings=settings, services=everybody, is_far=True, is_fleet=True))
    if dice.random() < 0.4:
        one = frozenset({dice.randrange(services)})
        pools.append(PlannedPool(settings=_several(dice, "side"), services=one, is_far=True))
    return pools


def _settings(
    dice: Random, name: str, *, isolation: Isolation, queues: tuple[str, ...] = ("*",)
) -> PoolSettings:
    budget = Budget(cpu_millis=dice.choice((2000, 4000)), memory_bytes=_MEMORY_BYTES)
    return PoolSettings(
        name=name,
        provider="scripted",
        slots=dice.randint(1, 4),
        budget=budget,
        isolation=isolation,
        queues=queues,
    )


def _several(dice: Random, name: str) -> PoolSettings:
    """Where there are several, some jobs fit only one of them."""
    isolation = dice.choice((Isolation.NONE, Isolation.CONTAINER, Isolation.MICROVM, Isolation.MICROVM))
    queues = dice.choice((("*",), ("*",), *((queue,) for queue in QUEUES)))
    settings = _settings(dice, name, isolation=isolation, queues=queues)
    if dice.random() < 0.3:
        settings = dataclasses.replace(settings, budget=Budget(cpu_millis=1000, memory_bytes=_MEMORY_BYTES))
    return settings


def _mishaps(dice: Random) -> tuple[Mishap, ...]:
    """Some silences are shorter than a machine's lease, some end just when it is over."""
    return tuple(
        Mishap(
            at=round(dice.uniform(5, 45), 3),
            number=dice.randrange(100),
            lasts_s=dice.choice((None, 5.0, 29.0, 31.0, 33.0, 100.0)),
        )
        for _ in range(dice.choice((1, 3, 5)))
    )


def _deaths(dice: Random, *, services: int, survivor: int) -> tuple[Death, ...]:
    return tuple(
        Death(at=round(dice.uniform(5, 50), 3), service=service)
        for service in range(services)
        if service != survivor and dice.random() < 0.3
    )


def _dropped(dice: Random, pool: PlannedPool) -> PlannedPool:
    if dice.random() < 0.8:
        return pool
    return dataclasses.replace(pool, dropped_at=round(dice.uniform(5, 45), 3))


def _loss(dice: Random, pool: PlannedPool, deaths: tuple[Death, ...]) -> Loss | None:
    """A pool that nobody has any more is given up, sooner or later (at the latest when the faults end); one that
    somebody has may lose what it runs."""
    gone_at = max((death.at for death in deaths if {death.service} == pool.services), default=None)
    ends = [at for at in (gone_at, pool.dropped_at) if at is not None]
    told_after_s = dice.choice((0.0, 1.0, 10.0))
    if ends:
        if dice.random() < 0.3:
            return None
        at = round(min(ends) + dice.uniform(0.5, 15), 3)
        return Loss(at=at, pool=pool.name, told_after_s=told_after_s, is_final=True)
    if dice.random() < 0.75:
        return None
    return Loss(at=round(dice.uniform(5, 45), 3), pool=pool.name, told_after_s=told_after_s, is_final=False)
