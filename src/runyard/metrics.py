"""What Prometheus scrapes: the ledger's own counts, read at the scrape, so that no metric disagrees with a list; and
how this process is itself.
"""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, generate_latest

from runyard.ledger.port import Ledger


async def render_metrics(ledger: Ledger) -> bytes:
    """The exposition text. Its label sets are bounded by the numbers of queues and pools."""
    registry = CollectorRegistry()
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
