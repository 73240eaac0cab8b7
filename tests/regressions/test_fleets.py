"""Incidents of machines: cut off, partly idle, draining, left over."""

from __future__ import annotations

import asyncio

import pytest

from runyard.dispatch.caretaker import Caretaker
from runyard.model.attempt import AttemptKey
from runyard.model.job import JobState
from runyard.model.machine import MachineState
from runyard.model.operation import OperationKind
from runyard.model.pool import Fence
from runyard.testing.machine_provider import MACHINES_MAX, MachineProvider
from runyard.testing.machine_world import BOOT_S, LEASE_S, POOL, Machine, MachineWorld
from runyard.testing.plays import Play
from runyard.testing.virtual_time import Process
from tests.factories import a_pool_settings
from tests.regressions.conftest import Yard

LOOK_S = 5.0


class Fleet:
    """A yard whose one pool has machines. Each job's command lasts as long as its `lasts_s` says, 1 s otherwise."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.lasts_s: dict[str, float] = {}
        self.world = MachineWorld(
            script=lambda request: Play(lasts_s=self.lasts_s.get(request.key.uid, 1.0)), ledger=yard.ledger
        )

    def start_owner(self, name: str = "service-1") -> Process:
        return self.yard.start_owner(name, provider=MachineProvider(self.world), pool=POOL)

    async def submit(self, *, lasts_s: float) -> str:
        uid = await self.yard.submit()
        self.lasts_s[uid] = lasts_s
        return uid

    async def starts(self, uid: str) -> Machine:
        """The machine that its first attempt began on."""
        async with asyncio.timeout(120):
            while not self.world.starts[AttemptKey(uid, 1)]:  # noqa: ASYNC110 -- virtual time
                await asyncio.sleep(0.1)
        return self.world.machine_of(AttemptKey(uid, 1))

    async def states(self) -> list[MachineState]:
        return [machine.state for machine in await self.yard.ledger.list_machines(POOL)]


@pytest.fixture
async def fleet(yard: Yard) -> Fleet:
    await yard.ledger.delete_pool("local")
    await yard.ledger.put_pool(a_pool_settings(name=POOL))
    return Fleet(yard)


async def test_11_a_machine_that_is_back_without_its_work_does_not_keep_the_attempt(fleet: Fleet) -> None:
    fleet.start_owner()
    uid = await fleet.submit(lasts_s=1e6)
    machine = await fleet.starts(uid)
    machine.is_silent = True
    await asyncio.sleep(LEASE_S + 0.5)  # it stopped everything, and nobody has condemned it yet
    machine.is_silent = False
    await fleet.yard.reaches(uid, JobState.QUEUED, within_s=10)
    (attempt,) = await fleet.yard.ledger.list_attempts(uid)
    assert attempt.outcome is not None
    assert "cut off" in attempt.outcome.reason.message


async def test_16_a_demand_above_the_most_machines_is_clamped(fleet: Fleet) -> None:
    for _ in range(50):
        await fleet.submit(lasts_s=1e6)
    fleet.start_owner()
    await asyncio.sleep(120)
    assert len(fleet.world.machines) <= MACHINES_MAX
    assert len(fleet.world.starts) == a_pool_settings().slots


async def test_17_a_machine_of_which_one_slot_is_idle_stays(fleet: Fleet) -> None:
    fleet.start_owner()
    brief, lasting = await fleet.submit(lasts_s=1.0), await fleet.submit(lasts_s=500.0)
    machine = await fleet.starts(lasting)
    assert await fleet.starts(brief) is machine
    await fleet.yard.reaches(brief, JobState.SUCCEEDED)
    job = await fleet.yard.reaches(lasting, JobState.SUCCEEDED)
    assert job.attempts == 1


async def test_18_a_machine_that_was_left_draining_goes_back_to_work_when_something_waits(
    fleet: Fleet,
) -> None:
    fence = await an_idle_machine_left_draining(fleet)
    uid = await fleet.submit(lasts_s=1.0)
    await fleet.yard.ledger.release_pool(fence)
    fleet.start_owner("service-2")
    await fleet.yard.reaches(uid, JobState.SUCCEEDED, within_s=120)


async def test_18_a_machine_that_was_left_draining_ends_when_nothing_waits(fleet: Fleet) -> None:
    fence = await an_idle_machine_left_draining(fleet)
    await fleet.yard.ledger.release_pool(fence)
    fleet.start_owner("service-2")
    await asyncio.sleep(LOOK_S)
    assert await fleet.states() == []
    assert fleet.world.machines == {}


async def test_18_a_draining_machine_is_no_room(fleet: Fleet) -> None:
    await an_idle_machine_left_draining(fleet)
    (machine,) = await fleet.yard.ledger.list_machines(POOL)
    assert machine.state is MachineState.DRAINING
    assert machine.free_slots == 0


async def an_idle_machine_left_draining(fleet: Fleet) -> Fence:
    """By an owner that died between its two steps."""
    ledger = fleet.yard.ledger
    fence = await ledger.acquire_pool(POOL, owner="service-1", lease_s=600)
    name = "runyard-0123456789abcdef-m1"
    await ledger.intend_machine(fence, name, slots=2, facts={})
    fleet.world.launch(name)
    await ledger.change_machine(fence, name, seen=MachineState.INTENDED, to=MachineState.STARTING, facts={})
    await asyncio.sleep(BOOT_S + 2)
    assert await ledger.change_machine(
        fence, name, seen=MachineState.READY, to=MachineState.DRAINING, facts={}
    )
    return fence


async def test_26_the_first_job_of_a_pool_without_any_machine_gets_one(fleet: Fleet) -> None:
    fleet.start_owner()
    await asyncio.sleep(60)
    assert fleet.world.machines == {}
    uid = await fleet.submit(lasts_s=1.0)
    await fleet.yard.reaches(uid, JobState.SUCCEEDED, within_s=60)


async def test_26_a_machine_that_never_joins_does_not_keep_its_job_waiting_for_ever(fleet: Fleet) -> None:
    fleet.start_owner()
    uid = await fleet.submit(lasts_s=1.0)
    await asyncio.sleep(1)
    (machine,) = fleet.world.machines.values()
    machine.is_silent = True
    await fleet.yard.reaches(uid, JobState.SUCCEEDED, within_s=300)


async def test_29_a_fleet_that_was_given_up_leaves_no_pool_that_nothing_can_remove(fleet: Fleet) -> None:
    owner = fleet.start_owner()
    await fleet.starts(await fleet.submit(lasts_s=1e6))
    owner.freeze()
    await asyncio.sleep(60)
    await fleet.yard.ledger.request_operation(POOL, OperationKind.FORGET_POOL, {})
    await Caretaker(ledger=fleet.yard.ledger, owner="service-2", own_pools=frozenset()).tick()
    assert await fleet.yard.ledger.list_pools() == []
