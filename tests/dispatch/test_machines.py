"""The production dispatcher over a pool whose places are machines: rows before effects, and nothing busy is ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from runyard.dispatch.context import AttemptContext
from runyard.dispatch.operations import PoolOperations
from runyard.dispatch.ownership import PoolLease
from runyard.dispatch.pool_dispatcher import PoolDispatcher
from runyard.dispatch.records import LeaseRecords
from runyard.dispatch.sweep import Sweep
from runyard.ledger.port import Claimed
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Fenced, LedgerUnavailable, Unreachable
from runyard.model.job import Job, JobState
from runyard.model.machine import Machine, MachineState
from runyard.model.outcome import OutcomeKind
from runyard.model.pool import Demand, Fence
from runyard.policy.prune import BOOT_ALLOWANCE_S
from runyard.testing.conformance import virtual_time
from runyard.testing.machine_provider import MachineProvider
from runyard.testing.machine_world import BOOT_S, CONTACT_S, LEASE_S, POOL, MachineWorld
from runyard.testing.plays import Play
from tests.factories import a_new_job, a_pool_settings, a_spec


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time


class Fleet:
    def __init__(self) -> None:
        self.world = MachineWorld(script=lambda request: Play(lasts_s=150.0))
        self.ledger = self.world.ledger
        self._tasks: list[asyncio.Task[None]] = []
        self._made = 0

    async def open(self) -> None:
        await self.ledger.open()
        await self.ledger.put_pool(a_pool_settings(name=POOL))

    def start_owner(self, owner: str = "service-1") -> None:
        provider, clock = MachineProvider(self.world), self.world.clock
        sweep = Sweep(ledger=self.ledger, provider=provider, clock=clock)
        dispatcher = PoolDispatcher(
            a_pool_settings(name=POOL),
            ledger=self.ledger,
            provider=provider,
            owner=owner,
            clock=clock,
            context_of=self._context_of,
            operations=PoolOperations(ledger=self.ledger, provider=provider, sweep=sweep),
            sweep=sweep,
        )
        self.provider = provider
        self._tasks.append(asyncio.create_task(dispatcher.run()))

    def _context_of(self, claimed: Claimed, lease: PoolLease) -> AttemptContext:
        nowhere = Path("/nonexistent")
        return AttemptContext(
            ledger=self.ledger,
            lease=lease,
            key=claimed.attempt.key,
            log_directory=nowhere,
            log_bytes_max=1,
            artifact_directory=nowhere,
        )

    async def stop_owners(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def submit(self) -> str:
        self._made += 1
        (answer,) = await self.ledger.submit([a_new_job(self._made, spec=a_spec())])
        assert not isinstance(answer, Exception), answer
        return answer.job.uid

    async def reaches(self, uid: str, state: JobState, within_s: float = 600.0) -> Job:
        async with asyncio.timeout(within_s):
            while True:
                job = await self.ledger.get_job(uid)
                assert job is not None
                if job.state is state:
                    return job
                await asyncio.sleep(0.5)

    async def machines(self) -> list[Machine]:
        return await self.ledger.list_machines(POOL)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    made = Fleet()
    await made.open()
    made.start_owner()
    yield made
    await made.stop_owners()
    await made.world.close()


async def test_a_job_gets_a_machine_and_the_machine_goes_when_nothing_waits(fleet: Fleet) -> None:
    uid = await fleet.submit()
    await fleet.reaches(uid, JobState.RUNNING, within_s=BOOT_S + 5 * CONTACT_S)
    (machine,) = await fleet.machines()
    attempt = await fleet.ledger.get_attempt(AttemptKey(uid, 1))
    await fleet.reaches(uid, JobState.SUCCEEDED)
    ended = await fleet.ledger.get_attempt(AttemptKey(uid, 1))
    assert ended is not None
    assert ended.placement == {"machine": machine.name}
    assert attempt is not None
    await asyncio.sleep(120)
    assert await fleet.machines() == []
    assert fleet.world.machines == {}
    assert await fleet.ledger.list_bindings(POOL) == []


async def test_who_waits_for_a_machine_is_told(fleet: Fleet) -> None:
    uid = await fleet.submit()
    await asyncio.sleep(BOOT_S - 1)
    attempt = await fleet.ledger.get_attempt(AttemptKey(uid, 1))
    why = await fleet.ledger.wait_facts(uid)
    texts = [attempt.progress.text if attempt and attempt.progress else ""]
    texts += [one.availability.why for one in why.availability] if why else []
    assert any("machine" in text for text in texts), texts


async def test_a_restart_of_the_service_keeps_its_fleet_and_what_runs_on_it(fleet: Fleet) -> None:
    uid = await fleet.submit()
    await fleet.reaches(uid, JobState.RUNNING)
    before = await fleet.machines()
    await fleet.stop_owners()
    await asyncio.sleep(LEASE_S * 2)  # the ledger answers, so the machines go on without an owner
    fleet.start_owner("service-2")
    await asyncio.sleep(10)
    assert [one.name for one in before] == list(fleet.world.machines)
    await fleet.reaches(uid, JobState.SUCCEEDED)
    assert fleet.world.starts[AttemptKey(uid, 1)] == 1


async def test_an_owner_that_died_between_the_row_and_the_create_is_finished_by_the_next(
    fleet: Fleet,
) -> None:
    await fleet.stop_owners()
    fence = await fleet.ledger.acquire_pool(POOL, owner="service-1", lease_s=1)
    assert fence is not None
    await fleet.ledger.intend_machine(fence, "runyard-0123456789abcdef-m1", slots=2, facts={})
    fleet.start_owner()
    uid = await fleet.submit()
    await fleet.reaches(uid, JobState.RUNNING)
    assert list(fleet.world.machines) == ["runyard-0123456789abcdef-m1"]


async def test_the_sweep_leaves_living_machines_and_ends_those_that_have_no_row(fleet: Fleet) -> None:
    uid = await fleet.submit()
    await fleet.reaches(uid, JobState.RUNNING)
    provider = MachineProvider(fleet.world)
    pool = await fleet.ledger.get_pool(POOL)
    assert pool is not None
    fence = Fence(POOL, pool.epoch)
    lease = cast(PoolLease, HeldLease(fence))
    await provider.handle_queue_size(Demand(at=0.0, running=1), LeaseRecords(fleet.ledger, lease))
    fleet.world.launch("runyard-0123456789abcdef-m9")
    sweep = Sweep(ledger=fleet.ledger, provider=provider, clock=fleet.world.clock)
    await asyncio.sleep(BOOT_ALLOWANCE_S)
    for _ in range(2):
        await sweep.run(fence)
    (machine,) = await fleet.machines()
    assert list(fleet.world.machines) == [machine.name]


async def test_a_canceled_job_is_ended_on_its_machine(fleet: Fleet) -> None:
    uid = await fleet.submit()
    await fleet.reaches(uid, JobState.RUNNING)
    await fleet.ledger.request_cancel(uid)
    await fleet.reaches(uid, JobState.CANCELED, within_s=30)
    assert all(not machine.work for machine in fleet.world.machines.values())


async def test_a_lost_machines_attempt_is_told_as_lost_after_the_fence(fleet: Fleet) -> None:
    uid = await fleet.submit()
    await fleet.reaches(uid, JobState.RUNNING)
    (machine,) = await fleet.machines()
    fleet.world.machines[machine.name].is_silent = True
    await asyncio.sleep(LEASE_S - 2)
    assert (await fleet.reaches(uid, JobState.RUNNING)).attempts == 1
    await asyncio.sleep(30)
    attempt = await fleet.ledger.get_attempt(AttemptKey(uid, 1))
    assert attempt is not None
    assert attempt.outcome is not None
    assert (attempt.outcome.kind, attempt.outcome.was_seen) == (OutcomeKind.LOST, True)
    (gone,) = [
        one for one in await fleet.ledger.list_machines(POOL, with_gone=True) if one.name == machine.name
    ]
    assert (gone.state, gone.fenced_at is not None) == (MachineState.GONE, True)


async def test_an_owner_hands_over_the_records_although_nothing_waits(fleet: Fleet) -> None:
    for owner in ("service-1", "service-2"):
        await fleet.stop_owners()
        fleet.start_owner(owner)
        await asyncio.sleep(5)
        assert (await fleet.provider.list_resources()).resources == ()


async def test_records_of_a_lost_pool_write_nothing_and_say_unreachable(fleet: Fleet) -> None:
    await fleet.stop_owners()
    old = await fleet.ledger.acquire_pool(POOL, owner="service-1", lease_s=1)
    assert old is not None
    await fleet.ledger.acquire_pool(POOL, owner="service-1", lease_s=1)
    lease = HeldLease(old)
    records = LeaseRecords(fleet.ledger, cast(PoolLease, lease))
    with pytest.raises(Unreachable):
        await records.intend_machine("runyard-0123456789abcdef-m1", slots=1)
    assert lease.is_lost
    with pytest.raises(Unreachable):
        await records.list_machines()
    assert await fleet.ledger.list_machines(POOL, with_gone=True) == []


async def test_records_over_an_unavailable_ledger_say_unreachable(fleet: Fleet) -> None:
    class Gone:
        def __getattr__(self, name: str) -> Any:
            async def call(*args: Any, **more: Any) -> Any:
                raise LedgerUnavailable("gone", cure="wait")

            return call

    records = LeaseRecords(cast(Any, Gone()), cast(PoolLease, HeldLease(Fence(POOL, 1))))
    with pytest.raises(Unreachable):
        await records.bind(AttemptKey("a" * 16, 1), "m")
    with pytest.raises(Unreachable):
        await records.now()


async def test_a_watch_is_woken_by_a_change_and_by_its_timer(fleet: Fleet) -> None:
    uid = await fleet.submit()
    await fleet.reaches(uid, JobState.RUNNING)
    await fleet.stop_owners()
    fence = await fleet.ledger.acquire_pool(POOL, owner="service-1", lease_s=1)
    assert fence is not None
    records = LeaseRecords(fleet.ledger, cast(PoolLease, HeldLease(fence)))
    async with contextlib.aclosing(records.watch(AttemptKey(uid, 1), timer_s=50.0)) as watching:
        first = await anext(watching)
        began = fleet.world.now()
        await records.ask_stop(AttemptKey(uid, 1), grace_s=1.0)
        second = await anext(watching)
        assert (first.stop_grace_s, second.stop_grace_s, fleet.world.now()) == (None, 1.0, began)
    assert [one async for one in records.watch(AttemptKey("z" * 16, 1))] == []


class HeldLease:
    def __init__(self, fence: Fence) -> None:
        self.fence = fence
        self.is_lost = False

    def holds(self) -> bool:
        return not self.is_lost

    def lose(self) -> None:
        self.is_lost = True


async def test_a_machine_that_an_operator_drains_ends_when_its_attempt_has(fleet: Fleet) -> None:
    uid = await fleet.submit()
    await fleet.reaches(uid, JobState.RUNNING)
    (machine,) = await fleet.machines()
    await fleet.ledger.set_machine_drained(machine.name, is_drained=True)
    other = await fleet.submit()
    await fleet.reaches(other, JobState.RUNNING)
    placed = await fleet.ledger.get_attempt(AttemptKey(other, 1))
    assert placed is not None
    assert placed.placement["machine"] != machine.name
    await fleet.reaches(uid, JobState.SUCCEEDED)
    await asyncio.sleep(3 * CONTACT_S)
    assert machine.name not in [one.name for one in await fleet.machines()]
    await fleet.reaches(other, JobState.SUCCEEDED)


async def test_a_pool_that_is_lost_as_soon_as_it_is_taken_is_not_taken_without_a_pause(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise Fenced("somebody else, again")

    await fleet.stop_owners()
    monkeypatch.setattr(fleet.ledger, "set_pool_health", refuse)
    before = await fleet.ledger.get_pool(POOL)
    fleet.start_owner()
    await asyncio.sleep(10.5)
    after = await fleet.ledger.get_pool(POOL)
    assert before is not None
    assert after is not None
    assert 2 <= after.epoch - before.epoch <= 11
