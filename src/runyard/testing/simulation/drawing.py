"""From a seed to its history, the same one for ever.

Two in five histories have one pool that one or two services share, the others several pools of several shapes
and owners. Each has its own mix of rates, so that some are calm but for one crash and some are a storm.
"""

from __future__ import annotations

from random import Random

from runyard.dispatch.retention import Keep
from runyard.model.job import JobSpec, Limits, NewJob, Retry, Step
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, Usage, lost
from runyard.model.queue import QueueSettings, TenantSettings
from runyard.model.requirements import Isolation, Requirements
from runyard.testing.plays import Play
from runyard.testing.simulation import drawing_pools
from runyard.testing.simulation.scenario import (
    QUEUES,
    TENANTS,
    Action,
    Jump,
    Outage,
    PlannedJob,
    Rates,
    Scenario,
    Stop,
)

LONG_S = 250.0
_MIB = 1 << 20


def draw(seed: int) -> Scenario:
    dice = Random(f"scenario {seed}")
    services = dice.choice((1, 2, 2, 2))
    survivor = dice.randrange(services)
    jobs = tuple(_job(dice, number) for number in range(1, dice.randint(4, 12)))
    rates = Rates(
        ledger=dice.choice((0, 0, 4, 20)),
        place=dice.choice((0, 0, 5, 25)),
        outcome_lag_s=dice.choice((0.0, 0.0, 2.0)),
        listing_lag_s=dice.choice((0.0, 0.0, 20.0)),
    )
    yard = drawing_pools.draw(dice, services=services, survivor=survivor, is_calm=rates.place == 0)
    return Scenario(
        seed=seed,
        services=services,
        pools=yard.pools,
        queues=tuple(_queue(dice, name) for name in QUEUES),
        tenants=tuple(_tenant(dice, name) for name in TENANTS),
        jobs=jobs,
        actions=_actions(dice, jobs),
        stops=tuple(_stop(dice, services) for _ in range(dice.choice((0, 1, 3, 5)))),
        outages=tuple(_outage(dice, services) for _ in range(dice.choice((0, 0, 1)))),
        jumps=tuple(_jump(dice, services) for _ in range(dice.choice((0, 0, 0, 1)))),
        losses=yard.losses,
        deaths=yard.deaths,
        mishaps=yard.mishaps,
        rates=rates,
        keep=_keep(dice),
        survivor=survivor,
    )


def _tenant(dice: Random, name: str) -> TenantSettings:
    return TenantSettings(
        name=name, weight=dice.choice((1.0, 2.0)), running_max=dice.choice((None, None, 1, 2))
    )


def _keep(dice: Random) -> Keep | None:
    if dice.random() < 0.5:
        return None
    return Keep(
        jobs_s=dice.choice((5.0, 30.0, 1e6)),
        logs_s=dice.choice((2.0, 20.0, 1e6)),
        artifacts_s=dice.choice((2.0, 20.0, 1e6)),
        logs_bytes_max=dice.choice((None, 2)),
    )


def _queue(dice: Random, name: str) -> QueueSettings:
    return QueueSettings(
        name=name,
        weight=dice.choice((1.0, 3.0)),
        running_max=dice.choice((None, None, 1, 2)),
        tenant_running_max=dice.choice((None, None, 1)),
    )


def _job(dice: Random, number: int) -> PlannedJob:
    limits = Limits(queue_s=dice.choice((None, None, None, 20.0)), run_s=dice.choice((5.0, 1000.0, 1000.0)))
    requirements = Requirements(
        cpu_millis=dice.choice((500, 1000, 2000)),
        memory_bytes=512 * _MIB,
        isolation=dice.choice((Isolation.NONE, Isolation.CONTAINER, Isolation.CONTAINER, Isolation.MICROVM)),
    )
    spec = JobSpec(
        steps=(Step(name="main", command=("true",)),),
        queue=dice.choice(QUEUES),
        tenant=dice.choice(TENANTS),
        priority=dice.choice((0, 0, 5)),
        requirements=requirements,
        limits=limits,
        retry=Retry(infrastructure=dice.randint(0, 2), failure=dice.choice((0, 0, 1))),
    )
    new = NewJob(
        uid=f"u{dice.getrandbits(60):015x}", id=f"job-{number}", spec=spec, spec_hash=f"hash-{number}"
    )
    plays = tuple(_play(dice, is_first=index == 0) for index in range(3))
    return PlannedJob(at=round(dice.uniform(0, 30), 3), new=new, plays=plays)


def _play(dice: Random, *, is_first: bool) -> Play:
    lasts_s = dice.choice((0.01, 0.3, 2.0, 8.0))
    if is_first and dice.random() < 0.08:
        lasts_s = LONG_S
    usage = Usage(wall_s=lasts_s)
    match dice.randrange(10):
        case 0:
            outcome = lost("the place died", was_seen=True, usage=usage)
        case 1 | 2:
            reason = Reason(code=ReasonCode.EXIT, message="exit 1")
            outcome = Outcome(kind=OutcomeKind.FAILED, exit_code=1, reason=reason, usage=usage)
        case _:
            outcome = Outcome(kind=OutcomeKind.SUCCEEDED, exit_code=0, usage=usage)
    return Play(lasts_s=lasts_s, outcome=outcome, ignores_term=dice.random() < 0.4)


_WHAT = (
    "cancel",
    "cancel",
    "submit_again",
    "retry",
    "read",
    "delete",
    "limit_queue",
    "pause_queue",
    "pause_pool",
    "check",
    "prune",
)


def _actions(dice: Random, jobs: tuple[PlannedJob, ...]) -> tuple[Action, ...]:
    """Cancels come soon after their job, while something happens to it. Checks of the pool come in bursts: each makes
    its owner look at everything, so that looks and ends overlap."""
    drawn = [_action(dice, jobs) for _ in range(dice.choice((0, 3, 8)))]
    checks = [
        Action(at=round(dice.uniform(0, 50), 3), what="check") for _ in range(dice.choice((0, 0, 10, 20)))
    ]
    return tuple(sorted(drawn + checks, key=lambda action: action.at))


def _action(dice: Random, jobs: tuple[PlannedJob, ...]) -> Action:
    what, job = dice.choice(_WHAT), dice.randrange(len(jobs))
    at = jobs[job].at + dice.uniform(0, 8) if what == "cancel" else dice.uniform(0, 50)
    return Action(at=round(at, 3), what=what, job=job, number=dice.randrange(100))


_MOMENTOUS = ("claim", "claim", "run_job", "run_job", "run_job", "settle", "destroy_resource", "acquire_pool")


def _stop(dice: Random, services: int) -> Stop:
    call = dice.choice((None, None, *_MOMENTOUS))
    return Stop(
        service=dice.randrange(services),
        call=call,
        at_call=dice.randint(1, 120 if call is None else 5),
        is_after=dice.random() < 0.5,
        is_pause=dice.random() < 0.5,
        lasts_s=dice.choice((0.5, 20.0, 20.0, 40.0)),
    )


def _outage(dice: Random, services: int) -> Outage:
    begins = dice.uniform(0, 30)
    return Outage(
        service=dice.randrange(services), begins=begins, ends=begins + dice.choice((1.0, 10.0, 25.0))
    )


def _jump(dice: Random, services: int) -> Jump:
    return Jump(
        at=round(dice.uniform(1, 40), 3),
        service=dice.randrange(-1, services),
        by_s=dice.choice((-600.0, -5.0, 5.0, 3600.0)),
    )
