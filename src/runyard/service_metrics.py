"""What this service did since it started, as counters and histograms for /metrics: dispatch tells, Prometheus reads.

No label can grow without bound: codes and phases are closed lists, and of names of queues and pools the first so many
have a label of their own; all others share `other`.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from runyard.dispatch.telemetry import EndedAttempt
from runyard.model.pool import Availability, AvailabilityKind, WaitCode

QUEUES_MAX = 200
POOLS_MAX = 50
OTHER = "other"
NOW = "now"

PHASE_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60, 300, 1800)
WAIT_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)

# They would be a second series for each counter, which the text format shows as a gauge of its own.
disable_created_metrics()  # type: ignore[no-untyped-call]


class BoundedNames:
    """The label of each name: the first `names_max` their own, all that come later `other`."""

    def __init__(self, names_max: int) -> None:
        self._names_max = names_max
        self._names: set[str] = set()

    def label(self, name: str) -> str:
        if name in self._names:
            return name
        if len(self._names) >= self._names_max:
            return OTHER
        self._names.add(name)
        return name


M = TypeVar("M", bound=MetricWrapperBase)


class _Labelled(Generic[M]):
    """A metric whose series are looked up once each: prometheus_client takes 2 µs for every look."""

    def __init__(self, metric: M) -> None:
        self._metric = metric
        self._series: dict[tuple[str, ...], M] = {}

    def of(self, *labels: str) -> M:
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = self._metric.labels(*labels)
        return series


class ServiceMetrics:
    """A Telemetry (dispatch/telemetry.py). `registry` holds all that it counts; `queues` and `pools` bound the labels,
    of whatever else speaks of them too."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.queues = BoundedNames(QUEUES_MAX)
        self.pools = BoundedNames(POOLS_MAX)
        self._phases = _histogram(
            registry,
            "runyard_phase_seconds",
            "How long each phase of an attempt lasted",
            "pool",
            "phase",
            buckets=PHASE_BUCKETS_S,
        )
        self._start = _histogram(
            registry,
            "runyard_start_seconds",
            "From the claim of an attempt to its first step",
            "pool",
            buckets=PHASE_BUCKETS_S,
        )
        self._wait = _histogram(
            registry, "runyard_queue_wait_seconds", "From queued to claimed", "queue", buckets=WAIT_BUCKETS_S
        )
        self._claims = _counter(registry, "runyard_claims", "Attempts that were claimed", "pool")
        self._attempts = _counter(
            registry, "runyard_attempts", "Attempts that ended", "pool", "outcome", "reason"
        )
        self._jobs = _counter(
            registry, "runyard_jobs_settled", "What became of jobs whose attempt ended", "queue", "state"
        )
        self._cache_uses = _counter(
            registry,
            "runyard_cache_uses",
            "What is kept between attempts, by how they had it",
            "pool",
            "cache",
            "result",
        )
        self._pruned = _counter(
            registry, "runyard_resources_pruned", "Resources of no living attempt, destroyed", "pool"
        )
        self._lost = _counter(registry, "runyard_leases_lost", "Pools that this service lost", "pool")
        self._unavailable = _counter(
            registry, "runyard_ledger_unavailable", "Calls of dispatch that the ledger did not take", "pool"
        )
        self._answers = _Answers()
        registry.register(self._answers)

    # -- what dispatch tells --------------------------------------------------------------------------------------
    def attempt_claimed(self, pool: str, queue: str, *, waited_s: float) -> None:
        self._claims.of(self.pools.label(pool)).inc()
        self._wait.of(self.queues.label(queue)).observe(waited_s)

    def attempt_ended(self, ended: EndedAttempt) -> None:
        pool, outcome = self.pools.label(ended.pool), ended.outcome
        reason = outcome.reason.code.value if outcome.reason else "none"
        self._attempts.of(pool, outcome.kind.value, reason).inc()
        if ended.state is not None:
            self._jobs.of(self.queues.label(ended.queue), ended.state.value).inc()
        for phase, seconds in ended.phases.items():
            self._phases.of(pool, phase).observe(seconds)
        for (cache, result), count in ended.cache_uses.items():
            self._cache_uses.of(pool, cache, result).inc(count)
        if ended.start_s is not None:
            self._start.of(pool).observe(ended.start_s)

    def pool_answered(self, pool: str, answers: Collection[Availability]) -> None:
        self._answers.latest[self.pools.label(pool)] = tuple(answers)

    def resources_pruned(self, pool: str, *, destroyed: int, kept: int) -> None:
        if destroyed:
            self._pruned.of(self.pools.label(pool)).inc(destroyed)

    def lease_lost(self, pool: str) -> None:
        self._lost.of(self.pools.label(pool)).inc()

    def ledger_unavailable(self, pool: str) -> None:
        self._unavailable.of(self.pools.label(pool)).inc()


class _Answers(Collector):
    """What each pool answered last, counted when somebody asks: pools are asked far more often than scraped."""

    def __init__(self) -> None:
        self.latest: dict[str, tuple[Availability, ...]] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "runyard_pool_answers",
            "Classes that waited when the pool was asked last, by what it answered",
            labels=["pool", "code"],
        )
        for pool, answers in self.latest.items():
            counts = Tally(_code_of(answer) for answer in answers)
            for code in (NOW, *(code.value for code in WaitCode)):
                family.add_metric([pool, code], counts[code])
        yield family


def _code_of(answer: Availability) -> str:
    if answer.kind is AvailabilityKind.NOW:
        return NOW
    return (answer.code or WaitCode.POOL_FULL).value


def _counter(registry: CollectorRegistry, name: str, text: str, *labels: str) -> _Labelled[Counter]:
    return _Labelled(Counter(name, text, labels, registry=registry))


def _histogram(
    registry: CollectorRegistry, name: str, text: str, *labels: str, buckets: tuple[float, ...]
) -> _Labelled[Histogram]:
    return _Labelled(Histogram(name, text, labels, buckets=buckets, registry=registry))
