"""I6, at the moment of the claim, over all pools: what is held of a queue, a tenant and a pool, and where it may run.
Limits that are lowered later end nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runyard.model.job import JobSpec
from runyard.testing.simulation.scenario import Scenario
from runyard.testing.simulation.snapshot import AttemptRow, Reader, Snapshot

_QUEUE_LIMITS = "SELECT name, is_paused, running_max, tenant_running_max FROM queues"


class Limits:
    """`spec` gives a job's as it was asked for."""

    def __init__(self, reader: Reader, scenario: Scenario, *, spec: Callable[[str], JobSpec]) -> None:
        self._reader = reader
        self._pools = {pool.name: pool for pool in scenario.pools}
        self._spec = spec

    def broken(self, before: Snapshot, after: Snapshot) -> Iterator[str]:
        """What the attempts that are new exceed."""
        new = [after.attempts[name] for name in after.attempts.keys() - before.attempts.keys()]
        if not new:
            return
        held = [attempt for attempt in after.attempts.values() if not attempt.is_ended]
        queues = {row[0]: row[1:] for row in self._reader.rows(_QUEUE_LIMITS)}
        tenants = dict(self._reader.rows("SELECT name, running_max FROM tenants"))
        jobs = [after.jobs[one.uid] for one in held]
        for attempt in new:
            job = after.jobs[attempt.uid]
            is_paused, queue_max, share_max = queues[job.queue]
            if is_paused:
                yield f"{attempt.name} was claimed from the paused queue {job.queue}"
            for what, limit, count in (
                ("queue", queue_max, sum(one.queue == job.queue for one in jobs)),
                ("tenant", tenants[job.tenant], sum(one.tenant == job.tenant for one in jobs)),
                ("share", share_max, sum((one.queue, one.tenant) == (job.queue, job.tenant) for one in jobs)),
            ):
                if limit is not None and count > limit:
                    yield f"{attempt.name}: {count} at once, the limit of its {what} is {limit}"
            if not self._pools[attempt.pool].could_run(self._spec(job.uid)):
                yield f"{attempt.name} was claimed by {attempt.pool}, which cannot run it"
        for pool in sorted({attempt.pool for attempt in new}):
            yield from self._of_pool(pool, [one for one in held if one.pool == pool], after)

    def _of_pool(self, name: str, held: list[AttemptRow], after: Snapshot) -> Iterator[str]:
        has = self._pools[name].settings
        cpu = sum(self._spec(one.uid).requirements.cpu_millis for one in held)
        memory = sum(self._spec(one.uid).requirements.memory_bytes for one in held)
        if after.pools[name].is_paused:
            yield f"a claim from the paused pool {name}"
        if len(held) > has.slots or len({one.slot for one in held}) < len(held):
            yield f"{len(held)} attempts in {has.slots} slots of {name}: {[one.slot for one in held]}"
        if cpu > has.budget.cpu_millis or memory > has.budget.memory_bytes:
            yield f"{cpu} thousandths of a core given out of {has.budget.cpu_millis} of {name}"
