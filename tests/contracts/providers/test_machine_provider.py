"""Places that are machines keep the port's promises, and what far places owe besides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runyard.model.attempt import AttemptKey
from runyard.model.errors import NoCapacity, Unreachable
from runyard.model.job import Limits
from runyard.model.outcome import OutcomeKind, ReasonCode
from runyard.model.pool import ClassDemand, Demand
from runyard.providers.port import AttemptRequest, Provider, Records
from runyard.testing.conformance import FarProviderConformance, FarProviderWorld, TinyCommand, virtual_time
from runyard.testing.machine_provider import MACHINES_MAX, MachineProvider
from runyard.testing.machine_world import LEASE_S, MachineWorld
from runyard.testing.promises.world import Following, following
from runyard.testing.tiny_commands import play_of


def key_of(number: int) -> AttemptKey:
    return AttemptKey(f"conformance{number:05d}", 1)


class Machines(FarProviderWorld):
    deadline_s = 120.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.world = MachineWorld(script=play_of)

    @property
    def records(self) -> Records:
        return self.world.records

    async def start_provider(self) -> MachineProvider:
        """With the records in hand, as dispatch hands them over first thing."""
        await self.world.open(*(key_of(number).uid for number in (1, 2)))
        provider = MachineProvider(self.world)
        await provider.start()
        await provider.handle_queue_size(Demand(at=0.0), self.records)
        return provider

    async def kill_place(self, key: AttemptKey) -> None:
        self.world.terminate(self.world.machine_of(key).name)

    def count_starts(self, key: AttemptKey) -> int:
        return self.world.starts[key]

    def request(
        self, tiny: TinyCommand = TinyCommand.SUCCEED, *, number: int = 1, **more: Any
    ) -> AttemptRequest:
        """Of a job of its own: the ledger has one living attempt of each."""
        request = replace(super().request(tiny, number=number, **more), key=key_of(number))
        self.world.requests[request.key] = request
        return request

    async def close(self) -> None:
        await self.world.close()

    @contextlib.asynccontextmanager
    async def cut_off(self, provider: Provider) -> AsyncIterator[None]:
        assert isinstance(provider, MachineProvider)
        provider.is_cut_off = True
        for machine in self.world.machines.values():
            machine.is_silent = True
        try:
            yield
        finally:
            provider.is_cut_off = False
            for machine in self.world.machines.values():
                machine.is_silent = False

    async def lose_next_start_reply(self, provider: Provider) -> None:
        assert isinstance(provider, MachineProvider)
        provider.lost_replies = 1

    async def refuse_next_start(self, provider: Provider) -> None:
        assert isinstance(provider, MachineProvider)
        provider.refusals.append(NoCapacity("no machine to be had"))


@pytest.fixture
def anyio_backend():
    return virtual_time


@pytest.fixture
async def machines(tmp_path):
    made = Machines(tmp_path)
    yield made
    await made.close()


class TestMachineProvider(FarProviderConformance):
    @pytest.fixture
    async def world(self, machines):
        return machines


async def silent_for(machines: Machines, key: AttemptKey, seconds: float) -> None:
    machine = machines.world.machine_of(key)
    machine.is_silent = True
    await asyncio.sleep(seconds)
    machine.is_silent = False


async def test_a_machine_that_was_silent_for_less_than_its_lease_goes_on(machines: Machines) -> None:
    provider, request = await machines.start_provider(), machines.request(TinyCommand.WAIT)
    async with following(machines, provider, request) as followed:
        await silent_for(machines, request.key, LEASE_S - 5)
        await provider.stop_job(request.key, grace_s=1.0)
        assert (await followed.outcome()).kind is OutcomeKind.CANCELED


async def test_a_loss_is_told_only_after_the_machine_stopped_itself(machines: Machines) -> None:
    provider, request = await machines.start_provider(), machines.request(TinyCommand.WAIT)
    async with following(machines, provider, request) as followed:
        machine = machines.world.machine_of(request.key)
        machine.is_silent = True
        await asyncio.sleep(LEASE_S - 2)
        assert not followed.task.done()
        outcome = await followed.outcome()
        assert (outcome.kind, outcome.was_seen) == (OutcomeKind.LOST, True)
        assert machine.work == {}
        assert machine.name not in machines.world.machines


async def test_an_outage_of_the_service_condemns_no_machine(machines: Machines) -> None:
    old, request = await machines.start_provider(), machines.request(TinyCommand.WAIT)
    async with following(machines, old, request):
        pass
    machines.world.clock.offset_s = 3600.0  # for an hour nobody was there to be called
    new = await machines.start_provider()
    async with following(machines, new, request) as followed:
        await asyncio.sleep(2)
        assert not followed.task.done()
    assert machines.count_starts(request.key) == 1


async def test_a_withdrawn_attempt_is_never_taken_afterwards(machines: Machines) -> None:
    provider = await machines.start_provider()
    request = machines.request(limits=Limits(start_s=2.0))
    outcome = await Following(machines, provider, request).outcome()
    assert outcome.reason is not None
    assert (outcome.reason.code, outcome.was_seen) == (ReasonCode.START_TIMEOUT, False)
    await asyncio.sleep(60)  # the machine that was launched for it has joined long ago
    assert machines.count_starts(request.key) == 0


async def test_a_silent_machine_makes_destroy_say_so_and_not_succeed(machines: Machines) -> None:
    provider, request = await machines.start_provider(), machines.request(TinyCommand.WAIT)
    async with following(machines, provider, request):
        pass
    machines.world.machine_of(request.key).is_silent = True
    with pytest.raises(Unreachable):
        await provider.destroy_resource(request.key.resource_name)
    assert [binding.key for binding in await machines.records.list_bindings()] == [request.key]


async def test_a_burst_of_demand_stops_at_the_most_machines_and_idle_ones_go(machines: Machines) -> None:
    provider = await machines.start_provider()
    crowd = ClassDemand(class_key="c", requirements=machines.requirements, queued=500)
    await provider.handle_queue_size(Demand(at=0.0, classes=(crowd,)), machines.records)
    assert len(machines.world.machines) == MACHINES_MAX
    await asyncio.sleep(10)
    await provider.handle_queue_size(Demand(at=10.0), machines.records)
    assert machines.world.machines == {}


async def test_a_busy_machine_outlives_the_demand(machines: Machines) -> None:
    provider, request = await machines.start_provider(), machines.request(TinyCommand.WAIT)
    async with following(machines, provider, request) as followed:
        for _ in range(3):
            await provider.handle_queue_size(Demand(at=0.0, running=1), machines.records)
        assert list(machines.world.machines) == [machines.world.machine_of(request.key).name]
        assert not followed.task.done()
