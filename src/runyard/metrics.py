"""What Prometheus scrapes: the ledger's own counts, read at the scrape, so that no metric disagrees with a list; and
how this process is itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from runyard.ledger.port import Ledger
from runyard.registry.cache.counters import Counters


async def render_metrics(ledger: Ledger, registry_cache: Counters | None = None) -> bytes:
    """The exposition text. Its label sets are bounded by the numbers of queues and pools."""
    registry = CollectorRegistry()
    if registry_cache is not None:
        registry.register(RegistryCacheCollector(registry_cache))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    await _process(registry)
    await _queues(registry, ledger)
    await _pools(registry, ledger)
    return generate_latest(registry)


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


async def _queues(registry: CollectorRegistry, ledger: Ledger) -> None:
    jobs = Gauge(
        "runyard_queue_jobs", "Unfinished jobs by queue and state", ["queue", "state"], registry=registry
    )
    oldest = Gauge(
        "runyard_queue_oldest_age_seconds", "Age of the oldest queued job", ["queue"], registry=registry
    )
    now = await ledger.now()
    for queue in await ledger.list_queues():
        name = queue.settings.name
        jobs.labels(name, "queued").set(queue.queued)
        jobs.labels(name, "starting").set(queue.starting)
        jobs.labels(name, "running").set(queue.running)
        oldest.labels(name).set(0 if queue.oldest_queued_at is None else max(now - queue.oldest_queued_at, 0))


async def _pools(registry: CollectorRegistry, ledger: Ledger) -> None:
    slots = Gauge("runyard_pool_slots", "Slots by pool and use", ["pool", "use"], registry=registry)
    healthy = Gauge(
        "runyard_pool_healthy", "1 where the pool has an owner and is healthy", ["pool"], registry=registry
    )
    for pool in await ledger.list_pools():
        name = pool.settings.name
        used = pool.starting + pool.running
        slots.labels(name, "starting").set(pool.starting)
        slots.labels(name, "running").set(pool.running)
        slots.labels(name, "idle").set(max(pool.settings.slots - used, 0))
        healthy.labels(name).set(pool.health.value == "healthy")


def render_cache_metrics(counters: Counters) -> bytes:
    """For a registry cache that runs alone."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(RegistryCacheCollector(counters))
    return generate_latest(registry)


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
