"""Machines, and the race for an attempt between its owner and its machine, on every ledger."""

from __future__ import annotations

import asyncio

import pytest

from runyard.ledger.port import Claimed
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Conflict, Fenced, Invalid, NotFound
from runyard.model.machine import Binding, BindingState, Machine, MachineState, machine_name, machine_number
from runyard.model.outcome import Outcome, OutcomeKind, lost, succeeded
from runyard.model.pool import Fence
from tests.contracts.ledger.world import World

NAME = machine_name("installation", "local", 1)
OTHER = machine_name("installation", "local", 2)
CANCELED = Outcome(kind=OutcomeKind.CANCELED, was_seen=False)


class Yard:
    """A pool with its owner, its machines and its attempts."""

    def __init__(self, world: World, fence: Fence) -> None:
        self.ledger = world.ledger
        self.world = world
        self.fence = fence

    async def intend(self, name: str = NAME, slots: int = 2) -> Machine:
        return await self.ledger.intend_machine(self.fence, name, slots=slots, facts={"type": "small"})

    async def ready(self, name: str = NAME, slots: int = 2) -> None:
        await self.intend(name, slots)
        await self.change(MachineState.INTENDED, MachineState.STARTING, name)
        await self.ledger.contact_machine(name)

    async def change(self, seen: MachineState, to: MachineState, name: str = NAME, **facts: str) -> bool:
        return await self.ledger.change_machine(self.fence, name, seen=seen, to=to, facts=facts)

    async def drain(self, name: str = NAME) -> bool:
        return await self.change(MachineState.READY, MachineState.DRAINING, name)

    async def claim(self) -> Claimed:
        await self.world.submit()
        [claimed] = await self.world.claim()
        return claimed

    async def attempt(self) -> AttemptKey:
        return (await self.claim()).attempt.key

    async def taken(self, name: str = NAME) -> AttemptKey:
        key = await self.attempt()
        assert await self.bind(key, name)
        assert await self.ledger.take_attempt(name, key)
        return key

    async def bind(self, key: AttemptKey, name: str = NAME) -> bool:
        return await self.ledger.bind_attempt(self.fence, key, name)

    async def binding(self, key: AttemptKey) -> Binding:
        binding = await self.ledger.get_binding(key)
        assert binding is not None
        return binding

    async def machine(self, name: str = NAME) -> Machine:
        machine = await self.ledger.get_machine(name)
        assert machine is not None
        return machine


@pytest.fixture
async def yard(world: World) -> Yard:
    return Yard(world, await world.own())


# -- names --------------------------------------------------------------------------------------------------------
def test_a_machines_name_is_derived_and_is_no_attempts() -> None:
    assert machine_name("installation", "local", 1) == NAME != OTHER
    assert machine_name("another", "local", 1) != NAME
    assert AttemptKey.from_resource_name(NAME) is None
    assert (machine_number(NAME), machine_number(OTHER)) == (1, 2)
    assert machine_number("runyard-" + "a" * 16 + "-1") is None


# -- a machine's life ---------------------------------------------------------------------------------------------
async def test_an_intended_machine_comes_back_as_it_was_put_and_a_repeat_changes_nothing(yard: Yard):
    first = await yard.intend()
    assert (first.state, first.slots, first.facts, first.held, first.contact_at) == (
        MachineState.INTENDED, 2, {"type": "small"}, 0, None,
    )  # fmt: skip
    yard.world.clock.advance(5)
    assert await yard.ledger.intend_machine(yard.fence, NAME, slots=9, facts={}) == first
    assert await yard.ledger.list_machines("local") == [first]
    assert await yard.ledger.list_machines("elsewhere") == []


async def test_another_pools_name_is_a_conflict_for_every_call(yard: Yard):
    await yard.ready()
    other = await yard.world.own("other")
    with pytest.raises(Conflict):
        await yard.ledger.intend_machine(other, NAME, slots=1, facts={})
    with pytest.raises(Conflict):
        await yard.ledger.change_machine(
            other, NAME, seen=MachineState.READY, to=MachineState.DRAINING, facts={}
        )
    with pytest.raises(Conflict):
        await yard.ledger.fence_machine(other, NAME, "x")
    with pytest.raises((Conflict, Fenced)):
        await yard.ledger.bind_attempt(other, await yard.attempt(), NAME)
    assert (await yard.machine()).state is MachineState.READY


async def test_its_first_contact_makes_it_ready_and_every_contact_is_noted(yard: Yard):
    await yard.intend()
    subscription = yard.ledger.subscribe("machines:local")
    machine = await yard.ledger.contact_machine(NAME, slots=4, facts={"zone": "a"})
    assert machine is not None
    assert (machine.state, machine.slots, machine.contact_at) == (
        MachineState.READY,
        4,
        yard.world.clock.now(),
    )
    assert machine.facts == {"type": "small", "zone": "a"}
    assert await subscription.wait(0) == {"machines:local"}
    yard.world.clock.advance(7)
    machine = await yard.ledger.contact_machine(NAME)
    assert machine is not None
    assert (machine.contact_at, machine.since) == (yard.world.clock.now(), yard.world.clock.now() - 7)
    assert await subscription.wait(0) == frozenset()
    assert await yard.ledger.contact_machine("runyard-unknown") is None


async def test_a_change_is_a_compare_and_set_and_may_be_repeated(yard: Yard):
    await yard.ready()
    assert not await yard.change(MachineState.DRAINING, MachineState.ENDING)
    assert await yard.drain()
    assert await yard.drain()
    assert await yard.change(MachineState.DRAINING, MachineState.READY)
    assert await yard.drain()
    assert await yard.change(MachineState.DRAINING, MachineState.ENDING, why="idle")
    assert not await yard.change(MachineState.DRAINING, MachineState.READY)
    assert await yard.change(MachineState.ENDING, MachineState.GONE)
    assert (await yard.machine()).facts == {"type": "small", "why": "idle"}
    assert await yard.ledger.list_machines("local") == []
    assert [one.name for one in await yard.ledger.list_machines("local", with_gone=True)] == [NAME]
    assert not await yard.change(MachineState.READY, MachineState.DRAINING, OTHER)


@pytest.mark.parametrize(
    ("seen", "to"),
    [("ready", "ending"), ("ready", "gone"), ("gone", "ready"), ("ending", "ready"), ("draining", "gone")],
)
async def test_what_may_not_follow_is_refused(yard: Yard, seen: str, to: str):
    await yard.ready()
    with pytest.raises(Invalid):
        await yard.change(MachineState(seen), MachineState(to))


async def test_a_gone_machine_stays_gone_whatever_calls_in(yard: Yard):
    await yard.intend()
    assert await yard.change(MachineState.INTENDED, MachineState.GONE)
    machine = await yard.ledger.contact_machine(NAME)
    assert machine is not None
    assert (machine.state, machine.contact_at) == (MachineState.GONE, None)


# -- binding ------------------------------------------------------------------------------------------------------
async def test_only_a_ready_machine_with_a_free_slot_is_bound(yard: Yard):
    first, second = await yard.attempt(), await yard.attempt()
    await yard.intend(slots=1)
    assert not await yard.bind(first)
    await yard.ledger.contact_machine(NAME)
    assert not await yard.bind(first, OTHER)
    assert await yard.bind(first)
    assert await yard.bind(first)  # the reply was lost
    assert not await yard.bind(second)
    assert (await yard.machine()).held == 1
    assert await yard.ledger.unbind_attempt(yard.fence, first)
    assert await yard.bind(second)
    assert [one.key for one in await yard.ledger.list_bindings("local", machine=NAME)] == [second]
    assert len(await yard.ledger.list_bindings("local")) == 2


async def test_an_attempt_is_bound_to_one_machine(yard: Yard):
    await yard.ready()
    await yard.ready(OTHER)
    key = await yard.attempt()
    assert await yard.bind(key)
    assert not await yard.bind(key, OTHER)
    assert not await yard.ledger.take_attempt(OTHER, key)
    assert (await yard.binding(key)).machine == NAME


async def test_a_settled_attempt_is_neither_bound_nor_taken_and_frees_its_slot(yard: Yard):
    await yard.ready(slots=1)
    claimed = await yard.claim()
    assert await yard.bind(claimed.attempt.key)
    await yard.world.settle(claimed)
    assert not await yard.ledger.take_attempt(NAME, claimed.attempt.key)
    assert not await yard.bind(claimed.attempt.key)
    assert (await yard.binding(claimed.attempt.key)).is_settled
    assert (await yard.machine()).held == 0
    assert await yard.drain()


async def test_an_attempt_that_there_is_not_is_not_bound(yard: Yard):
    await yard.ready()
    unknown = AttemptKey("z" * 16, 1)
    assert not await yard.bind(unknown)
    assert await yard.ledger.get_binding(unknown) is None
    assert await yard.ledger.release_attempt(yard.fence, unknown)
    assert await yard.ledger.end_attempt(yard.fence, unknown, CANCELED) is None


async def test_what_an_operator_drains_takes_nothing_new_and_keeps_what_it_has(yard: Yard):
    await yard.ready()
    key = await yard.taken()
    machine = await yard.ledger.set_machine_drained(NAME, is_drained=True)
    assert (machine.state, machine.held, machine.free_slots) == (MachineState.READY, 1, 0)
    assert not await yard.bind(await yard.attempt())
    assert await yard.ledger.take_attempt(NAME, key)
    repeated = await yard.ledger.set_machine_drained(NAME, is_drained=True)
    assert repeated.drain_asked_at == machine.drain_asked_at is not None


async def test_what_an_operator_drains_never_goes_back_to_work_until_he_takes_it_back(yard: Yard):
    await yard.ready()
    await yard.ledger.set_machine_drained(NAME, is_drained=True)
    assert await yard.drain()
    assert not await yard.change(MachineState.DRAINING, MachineState.READY)
    await yard.ledger.set_machine_drained(NAME, is_drained=False)
    assert await yard.change(MachineState.DRAINING, MachineState.READY)
    assert await yard.bind(await yard.attempt())


async def test_what_is_ending_is_neither_drained_nor_taken_back(yard: Yard):
    await yard.ready()
    await yard.drain()
    await yard.change(MachineState.DRAINING, MachineState.ENDING)
    for is_drained in (True, False):
        machine = await yard.ledger.set_machine_drained(NAME, is_drained=is_drained)
        assert (machine.state, machine.drain_asked_at) == (MachineState.ENDING, None)
    with pytest.raises(NotFound):
        await yard.ledger.set_machine_drained(OTHER, is_drained=True)


async def test_the_owner_is_woken_by_a_drain(yard: Yard):
    await yard.ready()
    subscription = yard.ledger.subscribe("pool:local")
    try:
        await yard.ledger.set_machine_drained(NAME, is_drained=True)
        assert await subscription.wait(10)
    finally:
        subscription.close()


async def test_a_busy_machine_is_not_drained(yard: Yard):
    await yard.ready()
    key = await yard.attempt()
    assert await yard.bind(key)
    assert not await yard.drain()
    assert await yard.ledger.unbind_attempt(yard.fence, key)
    assert await yard.drain()
    assert not await yard.bind(key)


async def test_who_watches_is_woken_by_each_step(yard: Yard):
    await yard.ready()
    key = await yard.attempt()
    owner, machine = yard.ledger.subscribe(f"job:{key.uid}"), yard.ledger.subscribe(f"machine:{NAME}")
    await yard.bind(key)
    assert await machine.wait(0)
    assert await owner.wait(0)
    await yard.ledger.take_attempt(NAME, key)
    assert await owner.wait(0)
    await yard.ledger.report_attempt(NAME, key, phases={"running": 1.0})
    assert await owner.wait(0)
    await yard.ledger.stop_attempt(yard.fence, key, grace_s=1)
    assert await machine.wait(0)
    await yard.ledger.release_attempt(yard.fence, key)
    assert await machine.wait(0)


# -- the machine's side -------------------------------------------------------------------------------------------
async def test_what_was_taken_is_not_taken_back(yard: Yard):
    await yard.ready()
    key = await yard.taken()
    assert await yard.ledger.take_attempt(NAME, key)  # the reply was lost
    assert not await yard.ledger.unbind_attempt(yard.fence, key)
    assert await yard.ledger.end_attempt(yard.fence, key, CANCELED) is None
    binding = await yard.binding(key)
    assert (binding.state, binding.taken_at) == (BindingState.TAKEN, yard.world.clock.now())


async def test_what_was_taken_back_is_not_taken(yard: Yard):
    await yard.ready()
    key = await yard.attempt()
    await yard.bind(key)
    assert await yard.ledger.unbind_attempt(yard.fence, key)
    assert await yard.ledger.unbind_attempt(yard.fence, key)
    assert not await yard.ledger.take_attempt(NAME, key)
    assert await yard.bind(key)
    assert await yard.ledger.end_attempt(yard.fence, key, CANCELED) == CANCELED
    assert not await yard.ledger.take_attempt(NAME, key)
    assert not await yard.bind(key)
    assert (await yard.machine()).held == 0


async def test_a_report_is_merged_and_its_first_outcome_stands(yard: Yard):
    await yard.ready()
    key = await yard.taken()
    await yard.ledger.report_attempt(NAME, key, phases={"running": 1.0}, outputs={"a": "1"})
    binding = await yard.ledger.report_attempt(
        NAME, key, phases={"running": 9.0, "collecting": 2.0}, outcome=succeeded(), outputs={"b": "2"}
    )
    again = await yard.ledger.report_attempt(NAME, key, phases={}, outcome=lost("no", was_seen=True))
    assert again == binding == await yard.binding(key)
    assert binding is not None
    assert (binding.state, binding.outcome) == (BindingState.ENDED, succeeded())
    assert (binding.phases, binding.outputs) == ({"running": 1.0, "collecting": 2.0}, {"a": "1", "b": "2"})
    assert await yard.ledger.end_attempt(yard.fence, key, CANCELED) == succeeded()
    assert not await yard.drain()  # until the owner settled it


async def test_a_report_of_what_is_not_its_own_is_told_so(yard: Yard):
    await yard.ready()
    await yard.ready(OTHER)
    key = await yard.taken()
    assert await yard.ledger.report_attempt(OTHER, key, phases={}, outcome=succeeded()) is None
    bound = await yard.attempt()
    await yard.bind(bound)
    assert await yard.ledger.report_attempt(NAME, bound, phases={}, outcome=succeeded()) is None
    assert (await yard.binding(key)).outcome is None


async def test_a_stop_reaches_the_machine_and_forbids_what_is_not_taken(yard: Yard):
    await yard.ready()
    taken, bound, unbound = await yard.taken(), await yard.attempt(), await yard.attempt()
    await yard.bind(bound)
    for key in (taken, bound, unbound):
        await yard.ledger.stop_attempt(yard.fence, key, grace_s=3)
        await yard.ledger.stop_attempt(yard.fence, key, grace_s=9)
        assert (await yard.binding(key)).stop_grace_s == 3
    report = await yard.ledger.report_attempt(NAME, taken, phases={})
    assert report is not None
    assert report.stop_grace_s == 3
    assert not await yard.ledger.take_attempt(NAME, bound)
    assert not await yard.bind(unbound)


async def test_what_is_released_is_dropped_by_its_machine_first(yard: Yard):
    await yard.ready()
    taken, bound = await yard.taken(), await yard.attempt()
    await yard.bind(bound)
    assert await yard.ledger.release_attempt(yard.fence, bound)
    await yard.ledger.drop_attempt(NAME, taken)  # nobody asked it to
    assert not await yard.ledger.release_attempt(yard.fence, taken)
    assert (await yard.binding(taken)).is_unwanted
    assert not await yard.ledger.take_attempt(NAME, taken)
    await yard.ledger.drop_attempt(OTHER, taken)
    assert not await yard.ledger.release_attempt(yard.fence, taken)
    await yard.ledger.drop_attempt(NAME, taken)
    assert await yard.ledger.release_attempt(yard.fence, taken)
    assert await yard.ledger.list_bindings("local") == []


# -- fences -------------------------------------------------------------------------------------------------------
async def test_a_fence_is_the_one_way_to_end_a_busy_machine(yard: Yard):
    await yard.ready()
    taken, bound = await yard.taken(), await yard.attempt()
    await yard.bind(bound)
    assert await yard.ledger.fence_machine(yard.fence, NAME, "silent for 60 s")
    yard.world.clock.advance(5)
    assert await yard.ledger.fence_machine(yard.fence, NAME, "again")
    machine = await yard.machine()
    assert (machine.state, machine.fence_reason) == (MachineState.ENDING, "silent for 60 s")
    assert machine.fenced_at == machine.since == yard.world.clock.now() - 5
    assert not await yard.ledger.take_attempt(NAME, bound)
    gone = lost("its machine is gone", was_seen=True)
    assert await yard.ledger.end_attempt(yard.fence, taken, gone) == gone
    assert await yard.ledger.report_attempt(NAME, taken, phases={}, outcome=succeeded())
    assert (await yard.binding(taken)).outcome == gone
    assert await yard.ledger.release_attempt(yard.fence, taken)
    assert not await yard.ledger.fence_machine(yard.fence, OTHER, "unknown")


# -- fencing of owners --------------------------------------------------------------------------------------------
async def test_every_write_of_an_old_epoch_is_refused_and_a_machines_is_not(yard: Yard):
    await yard.ready()
    key, bound = await yard.taken(), await yard.attempt()
    old, ledger = yard.fence, yard.ledger
    yard.fence = await yard.world.own()
    await yard.bind(bound)
    calls = [
        ledger.intend_machine(old, OTHER, slots=1, facts={}),
        ledger.change_machine(old, NAME, seen=MachineState.READY, to=MachineState.DRAINING, facts={}),
        ledger.fence_machine(old, NAME, "x"),
        ledger.bind_attempt(old, await yard.attempt(), NAME),
        ledger.unbind_attempt(old, bound),
        ledger.stop_attempt(old, key, grace_s=1),
        ledger.end_attempt(old, bound, CANCELED),
        ledger.release_attempt(old, bound),
    ]
    for call in calls:
        with pytest.raises(Fenced):
            await call
    assert (await yard.machine()).state is MachineState.READY
    assert (await yard.binding(bound)).state is BindingState.BOUND
    assert await ledger.get_machine(OTHER) is None
    assert await ledger.take_attempt(NAME, bound)


async def test_another_pools_owner_touches_no_binding(yard: Yard):
    await yard.ready()
    key = await yard.attempt()
    other = await yard.world.own("other")
    for call in (
        yard.ledger.unbind_attempt(other, key),
        yard.ledger.stop_attempt(other, key, grace_s=1),
        yard.ledger.end_attempt(other, key, CANCELED),
        yard.ledger.release_attempt(other, key),
    ):
        with pytest.raises(Fenced):
            await call


# -- races --------------------------------------------------------------------------------------------------------
async def test_a_bind_and_a_drain_at_once_never_both_win(yard: Yard):
    for number in range(10):
        name = machine_name("installation", "local", number)
        await yard.ready(name)
        key = await yard.attempt()
        is_bound, is_drained = await asyncio.gather(yard.bind(key, name), yard.drain(name))
        assert is_bound != is_drained
        assert (await yard.machine(name)).held == int(is_bound)


async def test_a_take_and_an_unbind_at_once_never_both_win(yard: Yard):
    await yard.ready(slots=100)
    for _ in range(10):
        key = await yard.attempt()
        await yard.bind(key)
        is_taken, is_unbound = await asyncio.gather(
            yard.ledger.take_attempt(NAME, key), yard.ledger.unbind_attempt(yard.fence, key)
        )
        assert is_taken != is_unbound


async def test_binds_at_once_fill_the_slots_and_no_more(yard: Yard):
    await yard.ready(slots=3)
    keys = [await yard.attempt() for _ in range(8)]
    assert sum(await asyncio.gather(*(yard.bind(key) for key in keys))) == 3
    assert (await yard.machine()).held == 3


async def test_binds_of_one_attempt_to_two_machines_at_once_let_one_win(yard: Yard):
    await yard.ready()
    await yard.ready(OTHER)
    for _ in range(2):
        key = await yard.attempt()
        assert sum(await asyncio.gather(yard.bind(key), yard.bind(key, OTHER))) == 1


async def test_a_report_and_a_loss_at_once_leave_one_outcome(yard: Yard):
    await yard.ready(slots=100)
    keys = [await yard.taken() for _ in range(5)]
    await yard.ledger.fence_machine(yard.fence, NAME, "silent")
    gone = lost("gone", was_seen=True)
    for key in keys:
        stands, _ = await asyncio.gather(
            yard.ledger.end_attempt(yard.fence, key, gone),
            yard.ledger.report_attempt(NAME, key, phases={}, outcome=succeeded()),
        )
        assert stands == (await yard.binding(key)).outcome
        assert stands is not None


# -- what is left -------------------------------------------------------------------------------------------------
async def test_gone_machines_are_forgotten_after_their_time(yard: Yard):
    await yard.ready()
    await yard.drain()
    await yard.change(MachineState.DRAINING, MachineState.ENDING)
    await yard.change(MachineState.ENDING, MachineState.GONE)
    await yard.ready(OTHER)
    now = yard.world.clock.now()
    assert await yard.ledger.delete_gone_machines(before=now, limit=10) == 0
    yard.world.clock.advance(1)
    assert await yard.ledger.delete_gone_machines(before=now + 1, limit=10) == 1
    assert [one.name for one in await yard.ledger.list_machines("local", with_gone=True)] == [OTHER]


async def test_a_pool_with_machines_is_not_deleted(yard: Yard):
    await yard.intend()
    with pytest.raises(Conflict, match="1 machines"):
        await yard.ledger.delete_pool("local")
    await yard.change(MachineState.INTENDED, MachineState.GONE)
    await yard.ledger.delete_pool("local")
    assert await yard.ledger.get_machine(NAME) is None


async def test_a_deleted_job_leaves_no_binding(yard: Yard):
    await yard.ready()
    claimed = await yard.claim()
    await yard.bind(claimed.attempt.key)
    await yard.world.settle(claimed)
    await yard.ledger.delete_job(claimed.job.uid)
    assert await yard.ledger.list_bindings("local") == []
    await yard.ledger.drop_attempt(NAME, claimed.attempt.key)
