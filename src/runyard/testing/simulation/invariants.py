"""The invariants of ARCHITECTURE.md, checked after every commit of the ledger and at every start and end of a place.

The first violation is kept and ends the history; it is not raised where it is found, because there a service under
test would catch it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from runyard.model.job import JobSpec
from runyard.model.pool import Fence, PoolSettings
from runyard.model.requirements import resource_seconds
from runyard.policy.retry import UNSEEN_TRIES_MAX
from runyard.testing.scripted_world import Place, World
from runyard.testing.simulation.scenario import PlannedJob
from runyard.testing.simulation.snapshot import FINAL, AttemptRow, JobRow, Reader, Snapshot

_EPSILON = 1e-6
_STATES = frozenset({"set_availability", "set_pool_health", "renew_pool"})
"""Writes of an owner about its pool alone."""

_FENCED = _STATES | {"claim", "settle", "record_phases"}


class Checker:
    """`plans` maps a job's uid to what was asked for; every change goes into the trace by `note`."""

    def __init__(
        self,
        reader: Reader,
        *,
        world: World,
        pool: PoolSettings,
        plans: Mapping[str, PlannedJob],
        note: Callable[[str, str, object], None],
    ) -> None:
        self._reader = reader
        self._world = world
        self._pool = pool
        self._plans = plans
        self._note = note
        self._seen = reader.snapshot()
        self._holders: dict[int, str] = {}
        self.violation: str | None = None
        self.commits = 0
        world.on_start = self._started
        world.on_destroy = self._destroyed

    # -- the ledger -----------------------------------------------------------------------------------------------
    def committed(self, who: str, call: str, args: tuple[Any, ...], result: object) -> None:
        """After each call to the ledger, in the turn in which it committed."""
        if call == "acquire_pool" and isinstance(result, Fence):
            self._holders[result.epoch] = who
        if not self._reader.has_news() or self.violation:
            return
        self.commits += 1
        if call in _STATES:
            self._check_fence(self._seen, self._seen, who, call)
            return
        before, self._seen = self._seen, self._reader.snapshot()
        for check in (self._check_fence, self._check_jobs, self._check_attempts, self._check_limits):
            check(before, self._seen, who, call)
        for wrong in self._reader.miscounts(self._seen):
            self._fail("counters", wrong)

    def _check_fence(self, before: Snapshot, after: Snapshot, who: str, call: str) -> None:
        """Only the holder of the pool's epoch writes for it."""
        if call not in (
            "claim",
            "settle",
            "record_phases",
            "set_availability",
            "set_pool_health",
            "renew_pool",
        ):
            return
        ((epoch,),) = self._reader.rows("SELECT epoch FROM pools")
        if self._holders.get(epoch) != who:
            self._fail(
                "ownership", f"{who} wrote by {call} while epoch {epoch} is {self._holders.get(epoch)}'s"
            )
        for name in after.attempts.keys() - before.attempts.keys():
            if after.attempts[name].epoch != epoch:
                self._fail("ownership", f"{name} was claimed for an epoch that is over")

    def _check_jobs(self, before: Snapshot, after: Snapshot, who: str, call: str) -> None:
        for uid, job in after.jobs.items():
            old = before.jobs.get(uid)
            if old == job:
                continue
            self._note(who, call, f"{uid} {job.state} {job.attempts}")
            if old is not None and old.state in FINAL:
                self._fail("I2", f"the final job {uid} changed from {old} to {job}")
            if job.cancel_requested_at is not None and job.state == "queued":
                self._fail("cancel", f"{uid} waits again although its cancel was asked for")
            self._check_costs(old, job)
        if gone := before.jobs.keys() - after.jobs.keys():
            self._fail("I1", f"jobs vanished: {sorted(gone)}")

    def _check_costs(self, old: JobRow | None, job: JobRow) -> None:
        """I8: what costs a retry really ran; and nobody gets more retries than were asked for."""
        retry = self._spec(job.uid).retry
        if job.infrastructure_failures > retry.infrastructure or job.failures > retry.failure:
            self._fail("retries", f"{job.uid} was given more retries than it asked for: {job}")
        if job.unseen_tries > UNSEEN_TRIES_MAX:
            self._fail("retries", f"{job.uid} was tried {job.unseen_tries} times without a start")
        if old is None:
            return
        costs = job.infrastructure_failures + job.failures - old.infrastructure_failures - old.failures
        name = f"runyard-{job.uid}-{job.attempts}"
        if costs and not self._world.starts.get(name):
            self._fail("I8", f"{name} never started and cost its job a retry")

    def _check_attempts(self, before: Snapshot, after: Snapshot, who: str, call: str) -> None:
        for name, attempt in after.attempts.items():
            old = before.attempts.get(name)
            if old == attempt:
                continue
            if old is not None and old.is_ended:
                self._fail("I1", f"the outcome of {name} was accepted again: {attempt.outcome}")
            if attempt.is_ended:
                self._check_end(attempt, before, after)

    def _check_end(self, attempt: AttemptRow, before: Snapshot, after: Snapshot) -> None:
        outcome = json.loads(attempt.outcome or "{}")
        kind, place = outcome.get("kind"), self._world.places.get(attempt.name)
        if kind == "lost" and place is not None and place.starts and place.is_running:
            self._fail("I4", f"{attempt.name} was declared lost while it runs")
        real = self._world.ends.get(attempt.name)
        if kind in ("succeeded", "failed", "timed_out") and (real is None or real.kind.value != kind):
            self._fail("I1", f"{attempt.name} was settled as {kind}, its end was {real}")
        self._check_charge(attempt, outcome, before, after)

    def _check_charge(
        self, attempt: AttemptRow, outcome: Mapping[str, Any], before: Snapshot, after: Snapshot
    ) -> None:
        """I12: from the estimate to what was used, once, for the tenant and for the queue."""
        job = after.jobs[attempt.uid]
        was_seen = outcome.get("was_seen", True)
        wall_s = float(outcome.get("usage", {}).get("wall_s", 0.0))
        used = resource_seconds(self._spec(job.uid).requirements, wall_s) if was_seen else 0.0
        samples = after.samples[job.class_key] - before.samples[job.class_key]
        if samples != int(was_seen):
            self._fail("I12", f"{attempt.name} was counted {samples} times in its class")
        share = (job.queue, job.tenant)
        moved = after.vtimes[share] - before.vtimes[share]
        due = (used - attempt.charged) / self._weight("tenants", job.tenant)
        if abs(moved - due) > _EPSILON and not (moved > due and self._was_lifted(share, due, after)):
            self._fail("I12", f"{attempt.name} moved its tenant by {moved:g}, due was {due:g}")
        owed = after.owed[job.queue] - before.owed[job.queue]
        due = (used - attempt.charged) / self._weight("queues", job.queue)
        if abs(owed - due) > _EPSILON:
            self._fail("I12", f"{attempt.name} moved its queue by {owed:g}, due was {due:g}")

    def _was_lifted(self, share: tuple[str, str], due: float, after: Snapshot) -> bool:
        """Whoever becomes ready, or is let go by a limit, is lifted to the clock of a lane (before it is charged or
        after): idling earns no credit."""
        clocks = self._reader.rows(
            f"SELECT clock FROM lanes WHERE queue = '{share[0]}'"
            f" UNION SELECT clock FROM queues WHERE name = '{share[0]}'"
        )
        stands = (after.vtimes[share], after.vtimes[share] - due)
        return any(abs(at - clock) < _EPSILON for (clock,) in clocks for at in stands)

    def _weight(self, table: str, name: str) -> float:
        return float(self._reader.rows(f"SELECT weight FROM {table} WHERE name = '{name}'")[0][0])

    def _check_limits(self, before: Snapshot, after: Snapshot, who: str, call: str) -> None:
        """I6, at the moment of the claim: limits that are lowered later end nothing."""
        new = [after.attempts[name] for name in after.attempts.keys() - before.attempts.keys()]
        if not new:
            return
        held = [attempt for attempt in after.attempts.values() if not attempt.is_ended]
        self._check_pool(held)
        queues = {row[0]: row[1:] for row in self._reader.rows(_QUEUE_LIMITS)}
        tenants = dict(self._reader.rows("SELECT name, running_max FROM tenants"))
        for attempt in new:
            job = after.jobs[attempt.uid]
            jobs = [after.jobs[one.uid] for one in held]
            is_paused, queue_max, share_max = queues[job.queue]
            if is_paused:
                self._fail("I6", f"{attempt.name} was claimed from the paused queue {job.queue}")
            for what, limit, count in (
                ("queue", queue_max, sum(one.queue == job.queue for one in jobs)),
                ("tenant", tenants[job.tenant], sum(one.tenant == job.tenant for one in jobs)),
                ("share", share_max, sum((one.queue, one.tenant) == (job.queue, job.tenant) for one in jobs)),
            ):
                if limit is not None and count > limit:
                    self._fail("I6", f"{attempt.name}: {count} at once, the limit of its {what} is {limit}")

    def _check_pool(self, held: list[AttemptRow]) -> None:
        ((is_paused,),) = self._reader.rows("SELECT is_paused FROM pools")
        cpu = sum(self._spec(one.uid).requirements.cpu_millis for one in held)
        memory = sum(self._spec(one.uid).requirements.memory_bytes for one in held)
        if is_paused:
            self._fail("I6", "a claim from a paused pool")
        if len(held) > self._pool.slots or len({one.slot for one in held}) < len(held):
            self._fail(
                "I6", f"{len(held)} attempts in {self._pool.slots} slots: {[one.slot for one in held]}"
            )
        if cpu > self._pool.budget.cpu_millis or memory > self._pool.budget.memory_bytes:
            self._fail("I6", f"{cpu} thousandths of a core given out of {self._pool.budget.cpu_millis}")

    # -- the places -----------------------------------------------------------------------------------------------
    def _started(self, name: str) -> None:
        self._note("world", "starts", name)
        rows = self._reader.rows(f"SELECT uid, state FROM attempts WHERE {_BY_NAME} = '{name}'")
        if not rows:
            self._fail("I3", f"{name} was started and is recorded nowhere")
            return
        ((uid, state),) = rows
        if self._world.starts[name] > 1:
            self._fail("once", f"the command of {name} was started {self._world.starts[name]} times")
        elif state == "ended":
            self._fail("once", f"the command of {name} was started after its outcome was accepted")
        others = [key.resource_name for key in self._world.running if key.uid == uid]
        if others != [name]:
            self._fail("I4", f"{others} of one job run at the same time")

    def _destroyed(self, name: str, place: Place) -> None:
        self._note("world", "destroys", name)
        if not place.is_running or not place.starts:
            return
        rows = self._reader.rows(f"SELECT state FROM attempts WHERE {_BY_NAME} = '{name}'")
        if rows and rows[0][0] != "ended":
            self._fail("I9", f"{name} was destroyed while it runs")

    # -- the end --------------------------------------------------------------------------------------------------
    def is_quiet(self) -> bool:
        """I10: every job final, no resource left."""
        return not self._world.places and all(job.state in FINAL for job in self._seen.jobs.values())

    def unrest(self) -> str:
        open_jobs = {uid: job.state for uid, job in self._seen.jobs.items() if job.state not in FINAL}
        return f"unfinished jobs {open_jobs}, places left {sorted(self._world.places)}"

    def check_end(self) -> None:
        """The feed tells one end of each job, as its last word."""
        states: dict[str, list[str]] = {}
        for uid, state in self._reader.rows("SELECT uid, state FROM events ORDER BY sequence"):
            states.setdefault(uid, []).append(state)
        for uid, job in self._seen.jobs.items():
            told = states[uid]
            if told[0] != "queued" or told[-1] != job.state or sum(state in FINAL for state in told) != 1:
                self._fail("I1", f"the feed tells of {uid}: {told}")

    def _spec(self, uid: str) -> JobSpec:
        return self._plans[uid].new.spec

    def _fail(self, invariant: str, what: str) -> None:
        if self.violation is None:
            self.violation = f"{invariant}: {what}"


_BY_NAME = "'runyard-' || uid || '-' || number"
_QUEUE_LIMITS = "SELECT name, is_paused, running_max, tenant_running_max FROM queues"
