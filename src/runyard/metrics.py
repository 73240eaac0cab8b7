"""What Prometheus scrapes: the ledger's own counts, read at the scrape, so that no metric disagrees with a list; and
how this process is itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from runyard.api.open_bounds import OpenBounds, OpenKind, RefusedBy
from runyard.ledger.port import Ledger
from runyard.model.pool import PoolHealth
from runyard.policy.progress import STALLED_AFTER_S, stalled_queues
from runyard.registry.cache.counters import Counters
from runyard.service_metrics import BoundedNames, ServiceMetrics


async def render_metrics(
    ledger: Ledger,
    registry_cache: Counters | None = None,
    *,
    service: ServiceMetrics | None = None,
    bounds: OpenBounds | None = None,
) -> bytes:
    """The exposition text. `service` is what this process counted, its names bound the labels of all; `bounds` what it
    keeps open."""
    service = service or ServiceMetrics()
    registry = CollectorRegistry()
    if registry_cache is not None:
        registry.register(RegistryCacheCollector(registry_cache))
    if bounds is not None:
        registry.register(OpenCollector(bounds))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    await _process(registry)
    await _queues(registry, ledger, service.queues)
    await _pools(registry, ledger, service.pools)
    return generate_latest(service.registry) + generate_latest(registry)


async def _process(registry: CollectorRegistry) -> None:
    """What ProcessCollector cannot see: tasks that only grow are a leak, a slow turn is something that blocks."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(0)
    turn_s = loop.time() - began
    tasks = Gauge("runyard_process_tasks", "asyncio tasks of this service", registry=registry)
    tasks.set(len(asyncio.all_tasks()))
    turn = Gauge(
        "runyard_process_loop_turn_seconds", "How long one turn of the event loop took", registry=registry
    )
    turn.set(turn_s)


async def _queues(registry: CollectorRegistry, ledger: Ledger, names: BoundedNames) -> None:
    jobs = Gauge(
        "runyard_queue_jobs", "Unfinished jobs by queue and state", ["queue", "state"], registry=registry
    )
    oldest = Gauge(
        "runyard_queue_oldest_age_seconds", "Age of the oldest queued job", ["queue"], registry=registry
    )
    stalled = Gauge(
        "runyard_queue_stalled",
        f"How many queues have eligible work and no start for {STALLED_AFTER_S:g} s",
        ["queue"],
        registry=registry,
    )
    now = await ledger.now()
    queues = await ledger.list_queues()
    still = {one.queue for one in stalled_queues(queues, now)}
    ages: dict[str, float] = {}
    for queue in queues:
        label = names.label(queue.settings.name)
        jobs.labels(label, "queued").inc(queue.queued)
        jobs.labels(label, "starting").inc(queue.starting)
        jobs.labels(label, "running").inc(queue.running)
        stalled.labels(label).inc(queue.settings.name in still)
        age_s = 0.0 if queue.oldest_queued_at is None else max(now - queue.oldest_queued_at, 0.0)
        ages[label] = max(age_s, ages.get(label, 0.0))
    for label, age_s in ages.items():
        oldest.labels(label).set(age_s)


async def _pools(registry: CollectorRegistry, ledger: Ledger, names: BoundedNames) -> None:
    slots = Gauge("runyard_pool_slots", "Slots by pool and use", ["pool", "use"], registry=registry)
    healthy = Gauge(
        "runyard_pool_healthy", "1 where the pool has an owner and is healthy", ["pool"], registry=registry
    )
    health: dict[str, bool] = {}
    for pool in await ledger.list_pools():
        label = names.label(pool.settings.name)
        used = pool.starting + pool.running
        slots.labels(label, "starting").inc(pool.starting)
        slots.labels(label, "running").inc(pool.running)
        slots.labels(label, "idle").inc(max(pool.settings.slots - used, 0))
        health[label] = pool.health is PoolHealth.HEALTHY and health.get(label, True)
    for label, is_healthy in health.items():
        healthy.labels(label).set(is_healthy)


def render_cache_metrics(counters: Counters) -> bytes:
    """For a registry cache that runs alone."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(RegistryCacheCollector(counters))
    return generate_latest(registry)


class OpenCollector(Collector):
    """What is open, and what was refused because too much was."""

    def __init__(self, bounds: OpenBounds) -> None:
        self._bounds = bounds

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        is_open = GaugeMetricFamily("runyard_open", "Streams and searches that are open", labels=["kind"])
        for kind in OpenKind:
            is_open.add_metric([kind.value], self._bounds.open[kind])
        yield is_open
        refused = CounterMetricFamily(
            "runyard_open_refused",
            "Streams and searches that were refused, by whose bound was reached",
            labels=["kind", "bound"],
        )
        for kind in OpenKind:
            for by in RefusedBy:
                refused.add_metric([kind.value, by.value], self._bounds.refused[kind, by])
        yield refused


class RegistryCacheCollector(Collector):
    """The registry cache's own counts."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        counts = self._counters
        name = "runyard_registry_cache"
        answers = CounterMetricFamily(
            f"{name}_answers", "Manifests and blobs by how they were had", labels=["how"]
        )
        for how in ("hits", "misses", "joined", "stale", "denied", "corrupt"):
            answers.add_metric([how], getattr(counts, how))
        yield answers
        carried = CounterMetricFamily(f"{name}_bytes", "Bytes fetched and served", labels=["way"])
        carried.add_metric(["fetched"], counts.upstream_bytes)
        carried.add_metric(["served"], counts.served_bytes)
        yield carried
        yield CounterMetricFamily(
            f"{name}_upstream_requests", "Requests to upstreams", value=counts.upstream_requests
        )
        yield CounterMetricFamily(f"{name}_evictions", "Blobs removed for room", value=counts.evictions)
        yield GaugeMetricFamily(f"{name}_stored_bytes", "Bytes on disk", value=counts.stored_bytes)
        yield GaugeMetricFamily(f"{name}_stored_blobs", "Blobs on disk", value=counts.stored_blobs)
