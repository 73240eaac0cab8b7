"""The invariants of ARCHITECTURE.md, checked after every commit of the ledger and at every start and end of a place.

The first violation is kept and ends the history; it is not raised where it is found, because there a service under
test would catch it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from runyard.model.attempt import AttemptKey
from runyard.model.job import JobSpec
from runyard.model.requirements import resource_seconds
from runyard.policy.retry import UNSEEN_TRIES_MAX
from runyard.testing.machine_world import Machine
from runyard.testing.scripted_world import Place
from runyard.testing.simulation.fleet import running_on
from runyard.testing.simulation.leases import OF_MACHINES, STATES, Leases
from runyard.testing.simulation.limits import Limits
from runyard.testing.simulation.scenario import PlannedJob, Scenario
from runyard.testing.simulation.service import Installation
from runyard.testing.simulation.snapshot import FINAL, AttemptRow, JobRow, Reader, Snapshot

_EPSILON = 1e-6


class Checker:
    """`plans` maps a job's uid to what was asked for, `now` is the ledger's clock; every change goes into the trace by
    `note`."""

    def __init__(
        self,
        reader: Reader,
        *,
        shared: Installation,
        scenario: Scenario,
        plans: Mapping[str, PlannedJob],
        now: Callable[[], float],
        note: Callable[[str, str, object], None],
    ) -> None:
        self._reader = reader
        self._shared = shared
        self._sites = shared.sites
        self._plans = plans
        self._now = now
        self._note = note
        self._seen = reader.snapshot()
        self._pools = self._seen.pools
        self._lasting = sorted(pool.name for pool in scenario.lasting_pools)
        self._leases = Leases()
        self._limits = Limits(reader, scenario, spec=self._spec)
        self.violation: str | None = None
        self.commits = 0
        for pool, site in self._sites.by_pool.items():
            site.on_start = functools.partial(self._started, pool)
        for world in self._sites.worlds.values():
            world.on_destroy = self._destroyed
        for fleet in self._sites.fleets.values():
            fleet.world.on_terminate = self._terminated

    # -- the ledger -----------------------------------------------------------------------------------------------
    def committed(self, who: str, call: str, args: tuple[Any, ...], result: object) -> None:
        """After each call to the ledger, in the turn in which it committed."""
        if call == "acquire_pool":
            self._fail_each(
                "ownership",
                self._leases.taken(who, args, result, before=self._pools, now=self._now()),
            )
        if not self._reader.has_news() or self.violation:
            return
        self.commits += 1
        if call in OF_MACHINES:
            return
        first = args[0] if args else None
        if call in STATES:
            self._pools = self._reader.pools()
            after = dataclasses.replace(self._seen, pools=self._pools)
            self._fail_each("ownership", self._leases.broken(after, after, who, call, first))
            return
        before, self._seen = self._seen, self._reader.snapshot()
        self._pools = self._seen.pools
        self._fail_each("ownership", self._leases.broken(before, self._seen, who, call, first))
        self._check_jobs(before, self._seen, who, call)
        self._check_attempts(before, self._seen)
        self._fail_each("I6", self._limits.broken(before, self._seen))
        self._fail_each("counters", self._reader.miscounts(self._seen))

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
        for uid in sorted(before.jobs.keys() - after.jobs.keys()):
            self._note(who, call, f"{uid} deleted")
            if before.jobs[uid].state not in FINAL:
                self._fail("I1", f"{uid} vanished: it was {before.jobs[uid].state}")

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
        if costs and not self._sites.starts(name):
            self._fail("I8", f"{name} never started and cost its job a retry")

    def _check_attempts(self, before: Snapshot, after: Snapshot) -> None:
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
        kind = outcome.get("kind")
        if kind == "lost" and self._sites.is_running(attempt.name):
            self._fail("I4", f"{attempt.name} was declared lost while it runs")
        real = self._sites.end_of(attempt.name)
        is_told = kind in ("succeeded", "failed") or (kind == "timed_out" and outcome.get("was_seen", True))
        if is_told and (real is None or real.kind.value != kind):
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
        owed = after.owed[attempt.pool, job.queue] - before.owed[attempt.pool, job.queue]
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

    # -- the places -----------------------------------------------------------------------------------------------
    def _started(self, pool: str, name: str) -> None:
        self._note("world", "starts", name)
        key = AttemptKey.from_resource_name(name)
        rows = self._reader.rows(f"SELECT uid, pool, state FROM attempts WHERE {_BY_NAME} = '{name}'")
        if key is not None:
            self._shared.logs.keep(key)
            self._shared.artifacts.keep(key)
        if not rows:
            self._fail("I3", f"{name} was started and is recorded nowhere")
            return
        ((uid, recorded, state),) = rows
        if recorded != pool:
            self._fail("I3", f"{name} was started in {pool} and is recorded for {recorded}")
        if self._sites.starts(name) > 1:
            self._fail("once", f"the command of {name} was started {self._sites.starts(name)} times")
        elif state == "ended":
            self._fail("once", f"the command of {name} was started after its outcome was accepted")
        others = self._sites.running(uid)
        if others != [name]:
            self._fail("I4", f"{others} of one job run at the same time")

    def _destroyed(self, name: str, place: Place) -> None:
        self._note("world", "destroys", name)
        if not place.is_running or not place.starts:
            return
        rows = self._reader.rows(f"SELECT state FROM attempts WHERE {_BY_NAME} = '{name}'")
        if rows and rows[0][0] != "ended":
            self._fail("I9", f"{name} was destroyed while it runs")

    def _terminated(self, machine: Machine) -> None:
        """I9: with work that is not settled yet only a machine that was condemned first, in writing."""
        self._note("cloud", "destroys", machine.name)
        ((fenced_at,),) = self._reader.rows(f"SELECT fenced_at FROM machines WHERE name = '{machine.name}'")
        for name in running_on(machine):
            rows = self._reader.rows(f"SELECT state FROM attempts WHERE {_BY_NAME} = '{name}'")
            if fenced_at is None and rows and rows[0][0] != "ended":
                self._fail("I9", f"{machine.name} was destroyed while it runs {name}")

    def deleted(self, key: AttemptKey, what: str) -> None:
        """What an attempt left is deleted for good."""
        self._note("retention", f"deletes {what}", key.resource_name)
        rows = self._reader.rows(f"SELECT state FROM jobs WHERE uid = '{key.uid}'")
        if rows and rows[0][0] not in FINAL:
            self._fail("retention", f"the {what} of {key.resource_name} was deleted, its job is {rows[0][0]}")

    # -- the end --------------------------------------------------------------------------------------------------
    def is_quiet(self) -> bool:
        """I10: every job final, no resource left, and no pool but those that are served."""
        is_released = not self._reader.rows("SELECT 1 FROM bindings LIMIT 1")
        is_final = is_released and all(job.state in FINAL for job in self._seen.jobs.values())
        return is_final and not self._sites.left and sorted(self._seen.pools) == self._lasting

    def unrest(self) -> str:
        open_jobs = {uid: job.state for uid, job in self._seen.jobs.items() if job.state not in FINAL}
        bound = self._reader.rows("SELECT uid, number, state, machine FROM bindings")
        machines = self._reader.rows("SELECT name, state FROM machines WHERE state <> 'gone'")
        pools = (
            f"bound {bound}, machines {machines}, pools {sorted(self._seen.pools)}, served {self._lasting}"
        )
        return f"unfinished jobs {open_jobs}, places left {self._sites.left}, {pools}"

    def check_end(self) -> None:
        """The feed tells one end of each job, as its last word; and nobody's log is left."""
        for key in (*self._shared.logs.kept, *self._shared.artifacts.kept):
            if key.uid not in self._seen.jobs:
                self._fail("retention", f"what {key.resource_name} left was never deleted, its job was")
        states: dict[str, list[str]] = {}
        for uid, state in self._reader.rows("SELECT uid, state FROM events ORDER BY sequence"):
            states.setdefault(uid, []).append(state)
        for uid, job in self._seen.jobs.items():
            told = states[uid]
            if told[0] != "queued" or told[-1] != job.state or sum(state in FINAL for state in told) != 1:
                self._fail("I1", f"the feed tells of {uid}: {told}")

    def _spec(self, uid: str) -> JobSpec:
        return self._plans[uid].new.spec

    def _fail_each(self, invariant: str, found: Iterable[str]) -> None:
        for what in found:
            self._fail(invariant, what)

    def _fail(self, invariant: str, what: str) -> None:
        if self.violation is None:
            self.violation = f"{invariant}: {what}"


_BY_NAME = "'runyard-' || uid || '-' || number"
