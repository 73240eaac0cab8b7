"""One history, drawn from its seed: the pool, the jobs, what users do, and everything that goes wrong and when.

Faults end at `quiet_at`; then one service lives and must bring every job to its end. Half of the histories have two
services, and each has its own mix of rates, so that some are calm but for one crash and some are a storm.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from runyard.model.job import JobSpec, Limits, NewJob, Retry, Step
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, Usage, lost
from runyard.model.pool import Budget, PoolSettings
from runyard.model.queue import QueueSettings, TenantSettings
from runyard.model.requirements import Isolation, Requirements
from runyard.testing.plays import Play

QUIET_AT_S = 60.0
QUEUES = ("default", "other")
TENANTS = ("ann", "bob", "cyd")
LONG_S = 400.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """`plays` is what each attempt's command does, the last one again for all after it."""

    at: float
    new: NewJob
    plays: tuple[Play, ...]

    def play(self, number: int) -> Play:
        return self.plays[min(number, len(self.plays)) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something a user or operator does. `what` names a method of run.Users; `job` is an index into the jobs."""

    at: float
    what: str
    job: int = 0
    number: int = 0


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
    pool: PoolSettings
    queues: tuple[QueueSettings, ...]
    tenants: tuple[TenantSettings, ...]
    jobs: tuple[PlannedJob, ...]
    actions: tuple[Action, ...]
    stops: tuple[Stop, ...]
    outages: tuple[Outage, ...]
    jumps: tuple[Jump, ...]
    rates: Rates
    survivor: int

    @property
    def is_far(self) -> bool:
        """Whether places are behind a network, where calls go wrong and another service may own the pool."""
        return self.services > 1 or self.rates.place > 0


def draw(seed: int) -> Scenario:
    """The history of a seed; the same one for ever."""
    dice = Random(f"scenario {seed}")
    services = dice.choice((1, 2))
    jobs = tuple(_job(dice, number) for number in range(1, dice.randint(4, 12)))
    return Scenario(
        seed=seed,
        services=services,
        pool=_pool(dice),
        queues=tuple(_queue(dice, name) for name in QUEUES),
        tenants=tuple(
            TenantSettings(
                name=name, weight=dice.choice((1.0, 2.0)), running_max=dice.choice((None, None, 1, 2))
            )
            for name in TENANTS
        ),
        jobs=jobs,
        actions=_actions(dice, jobs),
        stops=tuple(_stop(dice, services) for _ in range(dice.choice((0, 1, 3, 5)))),
        outages=tuple(_outage(dice, services) for _ in range(dice.choice((0, 0, 1)))),
        jumps=tuple(_jump(dice, services) for _ in range(dice.choice((0, 0, 0, 1)))),
        rates=Rates(
            ledger=dice.choice((0, 0, 4, 20)),
            place=dice.choice((0, 0, 5, 25)),
            outcome_lag_s=dice.choice((0.0, 0.0, 2.0)),
            listing_lag_s=dice.choice((0.0, 0.0, 20.0)),
        ),
        survivor=dice.randrange(services),
    )


def _pool(dice: Random) -> PoolSettings:
    slots = dice.randint(1, 4)
    budget = Budget(cpu_millis=dice.choice((2000, 4000)), memory_bytes=4096 * _MIB)
    return PoolSettings(
        name="far", provider="scripted", slots=slots, budget=budget, isolation=Isolation.CONTAINER
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
    requirements = Requirements(cpu_millis=dice.choice((500, 1000, 2000)), memory_bytes=512 * _MIB)
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
        Action(at=round(dice.uniform(0, 50), 3), what="check") for _ in range(dice.choice((0, 0, 10, 30)))
    ]
    return tuple(sorted(drawn + checks, key=lambda action: action.at))


def _action(dice: Random, jobs: tuple[PlannedJob, ...]) -> Action:
    what, job = dice.choice(_WHAT), dice.randrange(len(jobs))
    at = jobs[job].at + dice.uniform(0, 8) if what == "cancel" else dice.uniform(0, 50)
    return Action(at=round(at, 3), what=what, job=job, number=dice.randrange(100))


_MOMENTOUS = ("claim", "run_job", "run_job", "run_job", "settle", "destroy_resource", "acquire_pool")


def _stop(dice: Random, services: int) -> Stop:
    call = dice.choice((None, None, *_MOMENTOUS))
    return Stop(
        service=dice.randrange(services),
        call=call,
        at_call=dice.randint(1, 120 if call is None else 5),
        is_after=dice.random() < 0.5,
        is_pause=dice.random() < 0.5,
        lasts_s=dice.choice((0.5, 20.0, 40.0)),
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
