"""Random histories against a model that fits on a page: no job is lost, none is claimed past a limit, every outcome is
accepted once, every counter equals a count, and whatever can be claimed is."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runyard.ledger.port import Claimed, ClaimRequest, JobFilter, Submitted
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Conflict, Fenced, TooMany
from runyard.model.job import Job, JobState, Limits
from runyard.model.outcome import Outcome, OutcomeKind, Usage
from runyard.model.pool import Budget, Fence
from runyard.model.queue import QueueSettings, TenantSettings
from runyard.model.requirements import Requirements
from runyard.model.verdict import Final, Requeue, RetryCost, Verdict
from runyard.testing.postgres_server import NO_SERVER, find_binaries
from tests.contracts.ledger.conftest import BACKENDS
from tests.contracts.ledger.world import BIG, SMALL, ManualClock, new_job, pool_settings

T = TypeVar("T")

QUEUES = ("default", "other")
TENANTS = ("a", "b")
SELDOM = (False, False, False, False, True)
POOLS = {"all": pool_settings("all", slots=4), "narrow": pool_settings("narrow", slots=2, queues=("other",))}
ROOMS = {"all": (SMALL, BIG), "narrow": (SMALL,)}
BUDGET = Budget(cpu_millis=6000, memory_bytes=1 << 40)
# Mostly all that there is, as an owner asks after each settle; at times less, twice, or out of order.
SLOTS = st.one_of(st.just([0, 1, 2, 3, 4, 5]), st.lists(st.integers(0, 5), max_size=4))
MAXIMA = st.one_of(st.none(), st.integers(0, 3))


@dataclass
class Known:
    """A job as the model knows it. `claimed` is the pool and the slot, while it has any."""

    number: int
    queue: str
    tenant: str
    requirements: Requirements
    priority: int
    queued_at: float
    deadline: float | None
    state: JobState = JobState.QUEUED
    not_before: float | None = None
    attempts: int = 0
    pool: str | None = None
    slot: int = -1
    is_attempt_running: bool = False
    final: Job | None = None

    @property
    def uid(self) -> str:
        return f"{self.number:016x}"

    @property
    def key(self) -> AttemptKey:
        return AttemptKey(self.uid, self.attempts)

    @property
    def place(self) -> tuple[int, float, str]:
        return -self.priority, self.queued_at, self.uid


class LedgerMachine(RuleBasedStateMachine):
    backend = "sqlite-inline"

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.ledger = BACKENDS[self.backend](Path(self.folder.name), self.clock)
        self.do(self.ledger.open())
        self.jobs: dict[str, Known] = {}
        self.submitted = 0
        self.queues = {
            name: self.do(self.ledger.put_queue(QueueSettings(name=name))).settings for name in QUEUES
        }
        self.tenants = {
            name: self.do(self.ledger.put_tenant(TenantSettings(name=name))).settings for name in TENANTS
        }
        self.paused_pools: set[str] = set()
        self.stale: list[Fence] = []
        self.fences: dict[str, Fence] = {}
        for name, shape in POOLS.items():
            self.do(self.ledger.put_pool(shape))
            self.own(name)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.do(self.ledger.close())
            self.runner.close()
            self.folder.cleanup()

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def own(self, pool: str) -> None:
        fence = self.do(self.ledger.acquire_pool(pool, owner="me", lease_s=30))
        assert fence is not None
        self.fences[pool] = fence

    # -- what the model can tell ----------------------------------------------------------------------------------
    def claimed(self) -> list[Known]:
        return [job for job in self.jobs.values() if job.pool is not None]

    def queued(self) -> list[Known]:
        return [job for job in self.jobs.values() if job.state == JobState.QUEUED]

    def is_ready(self, job: Known) -> bool:
        return job.state == JobState.QUEUED and job.not_before is None

    def has_room(self, job: Known) -> bool:
        """Whether one more of the queue and the tenant may run."""
        claimed, queue = self.claimed(), self.queues[job.queue]
        of_queue = [one for one in claimed if one.queue == job.queue]
        of_tenant = [one for one in claimed if one.tenant == job.tenant]
        of_both = [one for one in of_queue if one.tenant == job.tenant]
        limits = (
            (of_queue, queue.running_max),
            (of_tenant, self.tenants[job.tenant].running_max),
            (of_both, queue.tenant_running_max),
        )
        return all(most is None or len(some) < most for some, most in limits)

    def is_claimable(self, job: Known, pool: str, cpu_left: int) -> bool:
        serves = POOLS[pool].queues == ("*",) or job.queue in POOLS[pool].queues
        return (
            serves
            and self.is_ready(job)
            and not self.queues[job.queue].is_paused
            and job.requirements in ROOMS[pool]
            and job.requirements.cpu_millis <= cpu_left
            and self.has_room(job)
        )

    def pick(self, data: st.DataObject, jobs: list[Known]) -> Known:
        return data.draw(st.sampled_from(sorted(jobs, key=lambda job: job.number)))

    # -- rules ----------------------------------------------------------------------------------------------------
    @rule(
        queue=st.sampled_from(QUEUES),
        tenant=st.sampled_from(TENANTS),
        requirements=st.sampled_from((SMALL, BIG)),
        priorities=st.lists(st.integers(-1, 1), min_size=1, max_size=4),
        queue_s=st.sampled_from((None, 20.0)),
    )
    def submit(self, priorities: list[int], queue_s: float | None, **spec: Any) -> None:
        for priority in priorities:
            self.submitted += 1
            new = new_job(self.submitted, priority=priority, limits=Limits(queue_s=queue_s), **spec)
            [answer] = self.do(self.ledger.submit([new]))
            if self.is_full(new.spec.queue, new.spec.tenant):
                assert isinstance(answer, TooMany)
                continue
            assert isinstance(answer, Submitted)
            assert answer.is_new
            now = self.clock.now()
            deadline = None if queue_s is None else now + queue_s
            job = Known(number=self.submitted, priority=priority, queued_at=now, deadline=deadline, **spec)
            self.jobs[job.uid] = job

    def is_full(self, queue: str, tenant: str) -> bool:
        of_queue = len([job for job in self.queued() if job.queue == queue])
        of_tenant = len([job for job in self.queued() if job.tenant == tenant])
        limits = ((of_queue, self.queues[queue].queued_max), (of_tenant, self.tenants[tenant].queued_max))
        return any(most is not None and count >= most for count, most in limits)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), is_same=st.booleans())
    def submit_again(self, data: st.DataObject, is_same: bool) -> None:
        job = self.pick(data, list(self.jobs.values()))
        new = new_job(10_000 + job.number, id=f"job-{job.number}", tenant=job.tenant)
        [answer] = self.do(self.ledger.submit([new if is_same else replace(new, spec_hash="other")]))
        if is_same:
            assert isinstance(answer, Submitted)
            assert (answer.is_new, answer.job.uid) == (False, job.uid)
        else:
            assert isinstance(answer, Conflict)

    @rule(pool=st.sampled_from(tuple(POOLS)), slots=SLOTS)
    def claim(self, pool: str, slots: list[int]) -> None:
        self.claim_for(pool, slots)

    @rule()
    def claim_all(self) -> None:
        for pool in POOLS:
            self.claim_for(pool, [0, 1, 2, 3, 4, 5])

    def claim_for(self, pool: str, slots: list[int]) -> None:
        rooms = {requirements.class_key(): 10 for requirements in ROOMS[pool]}
        request = ClaimRequest(fence=self.fences[pool], free_slots=tuple(slots), rooms=rooms, budget=BUDGET)
        got = self.do(self.ledger.claim(request))
        cpu_left = BUDGET.cpu_millis
        in_use = {job.slot for job in self.claimed() if job.pool == pool}
        free = [slot for slot in dict.fromkeys(slots) if slot not in in_use]
        free = free[: POOLS[pool].slots - len(in_use)]
        if pool in self.paused_pools:
            free = []
        assert len(got) <= len(free)
        for claimed, slot in zip(got, free, strict=False):
            cpu_left = self.took(claimed, pool, slot, cpu_left)
        if len(got) < len(free):
            left = [job for job in self.jobs.values() if self.is_claimable(job, pool, cpu_left)]
            assert not left, "it could have been claimed"

    def took(self, claimed: Claimed, pool: str, slot: int, cpu_left: int) -> int:
        job = self.jobs[claimed.job.uid]
        assert self.is_claimable(job, pool, cpu_left)
        rivals = [
            one
            for one in self.jobs.values()
            if (one.queue, one.tenant) == (job.queue, job.tenant) and self.is_claimable(one, pool, cpu_left)
        ]
        assert job.place == min(one.place for one in rivals)
        job.attempts += 1
        job.state, job.pool, job.slot, job.is_attempt_running = JobState.STARTING, pool, slot, False
        assert claimed.attempt.key == job.key
        assert (claimed.attempt.slot, claimed.attempt.epoch) == (slot, self.fences[pool].epoch)
        return cpu_left - job.requirements.cpu_millis

    @precondition(lambda self: self.claimed())
    @rule(data=st.data())
    def run(self, data: st.DataObject) -> None:
        job = self.pick(data, self.claimed())
        assert job.pool is not None
        self.do(self.ledger.record_phases(self.fences[job.pool], job.key, {"running": self.clock.now()}))
        job.is_attempt_running = True
        if job.state == JobState.STARTING:
            job.state = JobState.RUNNING

    @precondition(lambda self: self.claimed())
    @rule(
        data=st.data(),
        kind=st.sampled_from(OutcomeKind),
        wall_s=st.integers(0, 100),
        was_seen=st.booleans(),
        retry=st.sampled_from((None, "keep", "end", "later")),
    )
    def settle(
        self, data: st.DataObject, kind: OutcomeKind, wall_s: int, was_seen: bool, retry: str | None
    ) -> None:
        job = self.pick(data, self.claimed())
        assert job.pool is not None
        outcome = Outcome(kind=kind, usage=Usage(wall_s=wall_s), was_seen=was_seen)
        later = self.clock.now() + 10

        def decide(seen: Job, outcome: Outcome, now: float) -> Verdict:
            assert (seen.uid, seen.state, seen.attempts) == (job.uid, job.state, job.attempts)
            if retry is None or seen.cancel_requested_at is not None:
                return Final(state=JobState(kind.value))
            not_before = later if retry == "later" else None
            return Requeue(cost=RetryCost.FAILURE, keeps_place=retry == "keep", not_before=not_before)

        settled = self.do(self.ledger.settle(self.fences[job.pool], job.key, outcome, decide=decide))
        assert settled is not None
        if retry is None or job.state == JobState.CANCELING:
            job.state, job.final = JobState(kind.value), settled
        else:
            job.state, job.deadline = JobState.QUEUED, None
            job.not_before = later if retry == "later" else None
            job.queued_at = job.queued_at if retry == "keep" else self.clock.now()
        job.pool = None

    @precondition(lambda self: any(job.attempts and job.pool is None for job in self.jobs.values()))
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        ended = [job for job in self.jobs.values() if job.attempts and job.pool is None]
        job = self.pick(data, ended)
        attempt = self.do(self.ledger.get_attempt(job.key))
        assert attempt is not None
        before = self.do(self.ledger.get_job(job.uid))
        outcome = Outcome(kind=OutcomeKind.LOST)
        again = self.do(
            self.ledger.settle(self.fences[attempt.pool], job.key, outcome, decide=refuse_to_decide)
        )
        assert again == before
        assert self.do(self.ledger.get_attempt(job.key)) == attempt

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.pick(data, list(self.jobs.values()))
        answer = self.do(self.ledger.request_cancel(job.uid))
        if job.state == JobState.QUEUED:
            job.state, job.final = JobState.CANCELED, answer
        elif job.pool is not None:
            job.state = JobState.CANCELING
        assert answer.state == job.state

    @precondition(lambda self: any(job.final for job in self.jobs.values()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        job = self.pick(data, [job for job in self.jobs.values() if job.final])
        self.do(self.ledger.delete_job(job.uid))
        del self.jobs[job.uid]

    @rule(
        name=st.sampled_from(QUEUES),
        weight=st.sampled_from((0.5, 1.0, 4.0)),
        running_max=MAXIMA,
        tenant_running_max=MAXIMA,
        is_paused=st.sampled_from(SELDOM),
        queued_max=st.sampled_from((None, None, 3)),
    )
    def change_queue(self, name: str, **changes: Any) -> None:
        self.queues[name] = self.do(self.ledger.put_queue(QueueSettings(name=name, **changes))).settings

    @rule(name=st.sampled_from(TENANTS), running_max=MAXIMA, queued_max=st.sampled_from((None, None, 3)))
    def change_tenant(self, name: str, **changes: Any) -> None:
        self.tenants[name] = self.do(self.ledger.put_tenant(TenantSettings(name=name, **changes))).settings

    @rule(name=st.sampled_from(tuple(POOLS)), is_paused=st.sampled_from(SELDOM))
    def pause_pool(self, name: str, is_paused: bool) -> None:
        self.do(self.ledger.set_pool_paused(name, is_paused=is_paused))
        (self.paused_pools.add if is_paused else self.paused_pools.discard)(name)

    @rule(seconds=st.sampled_from((-50.0, 1.0, 10.0, 30.0)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.now()
        due = [job for job in self.queued() if job.not_before is not None and job.not_before <= now]
        expired = [job for job in self.queued() if job.deadline is not None and job.deadline <= now]
        assert self.do(self.ledger.promote_due(limit=100)) == len(due)
        assert set(self.do(self.ledger.expire_queued(limit=100))) == {job.uid for job in expired}
        for job in due:
            job.not_before = None
        for job in expired:
            job.state, job.final = JobState.TIMED_OUT, self.do(self.ledger.get_job(job.uid))

    @rule(pool=st.sampled_from(tuple(POOLS)))
    def take_over(self, pool: str) -> None:
        self.stale.append(self.fences[pool])
        self.own(pool)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def act_on_an_old_epoch(self, data: st.DataObject) -> None:
        fence = data.draw(st.sampled_from(self.stale))
        request = ClaimRequest(fence=fence, free_slots=(0,), rooms={SMALL.class_key(): 1}, budget=BUDGET)
        with pytest.raises(Fenced):
            self.do(self.ledger.claim(request))
        for job in self.claimed():
            with pytest.raises(Fenced):
                self.do(
                    self.ledger.settle(
                        fence, job.key, Outcome(kind=OutcomeKind.LOST), decide=refuse_to_decide
                    )
                )

    # -- invariants -----------------------------------------------------------------------------------------------
    @invariant()
    def no_job_is_lost_and_no_final_one_changes(self) -> None:
        page = self.do(self.ledger.list_jobs(JobFilter(), limit=1000))
        assert {job.uid: job.state for job in page.jobs} == {job.uid: job.state for job in self.jobs.values()}
        for job in page.jobs:
            final = self.jobs[job.uid].final
            assert final is None or final == job

    @invariant()
    def every_counter_equals_a_count(self) -> None:
        for queue in self.do(self.ledger.list_queues()):
            own = [job for job in self.jobs.values() if job.queue == queue.settings.name]
            running = [job for job in own if job.pool and job.is_attempt_running]
            starting = [job for job in own if job.pool and not job.is_attempt_running]
            queued = [job for job in own if job.state == JobState.QUEUED]
            assert (queue.queued, queue.starting, queue.running) == (len(queued), len(starting), len(running))
            oldest = min((job.queued_at for job in own if self.is_ready(job)), default=None)
            assert queue.oldest_queued_at == oldest
        for tenant in self.do(self.ledger.list_tenants()):
            of_tenant = [job for job in self.jobs.values() if job.tenant == tenant.settings.name]
            assert tenant.queued == len([job for job in of_tenant if job.state == JobState.QUEUED])
            assert tenant.running == len([job for job in of_tenant if job.pool])

    @invariant()
    def a_pool_holds_exactly_what_was_claimed_for_it(self) -> None:
        for name, fence in self.fences.items():
            held = {one.attempt.key for one in self.do(self.ledger.list_unfinished(fence))}
            assert held == {job.key for job in self.claimed() if job.pool == name}
            pool = self.do(self.ledger.get_pool(name))
            assert pool is not None
            assert pool.starting + pool.running == len(held) <= POOLS[name].slots

    @invariant()
    def demand_equals_what_is_ready(self) -> None:
        demand = {one.class_key: one.queued for one in self.do(self.ledger.list_demand(self.fences["all"]))}
        counted: dict[str, int] = {}
        for job in self.jobs.values():
            if self.is_ready(job) and not self.queues[job.queue].is_paused:
                key = job.requirements.class_key()
                counted[key] = counted.get(key, 0) + 1
        assert demand == counted


def refuse_to_decide(*_: object) -> Verdict:
    raise AssertionError("an ended attempt is not decided again")


class InMemoryThreadedMachine(LedgerMachine):
    backend = "sqlite-memory"


class PostgresqlMachine(LedgerMachine):
    backend = "postgresql"


def _shorter(machine: type[LedgerMachine], share: float) -> type:
    case = machine.TestCase
    most = max(5, int(settings.default.max_examples * share))  # type: ignore[union-attr]
    case.settings = settings(max_examples=most, stateful_step_count=50, deadline=None)
    return case


TestRandomHistoriesInline = _shorter(LedgerMachine, 1.0)
TestRandomHistoriesOnAThread = _shorter(InMemoryThreadedMachine, 0.1)
TestRandomHistoriesOnPostgresql = pytest.mark.service(
    pytest.mark.skipif(find_binaries() is None, reason=NO_SERVER)(_shorter(PostgresqlMachine, 0.3))
)
