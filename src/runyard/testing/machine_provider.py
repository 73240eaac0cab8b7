"""A provider whose places are machines that join, take attempts, hang and vanish: the port fitted to far places.

It shows what a far provider owes: a row before anything is created, one winner between a withdrawal and a machine's
take, contact times counted from the later of the last contact and the beginning of the ownership (an outage of the
service condemns no fleet), and a fence before a loss: an attempt is `lost` only once its machine is gone or past the
time at which it stops itself. All that it must remember is in `Records`; it keeps nothing itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from runyard.model.attempt import AttemptKey
from runyard.model.errors import NoCapacity, Unreachable
from runyard.model.finding import Finding
from runyard.model.machine import (
    Binding,
    BindingState,
    Machine,
    MachineState,
    machine_name,
    machine_number,
)
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, lost
from runyard.model.pool import Availability, Budget, Demand, Supply, WaitCode, never, now, soon
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.port import (
    AttemptRequest,
    Capabilities,
    PoolShape,
    Records,
    Resource,
    ResourceListing,
    RunContext,
)
from runyard.testing.machine_world import CONTACT_S, LEASE_S, POOL, MachineWorld
from runyard.testing.plays import NEVER_STARTED

ARCH = "amd64"
CREATE_DEADLINE_S = 5.0
MACHINES_MAX = 4
FENCE_MARGIN_S = 2 * CONTACT_S
DESTROY_DEADLINE_S = 10.0
DESTROYED = lost("it was destroyed", was_seen=True)


class MachineProvider:
    """`is_cut_off`: neither the cloud nor the ledger answers. `refusals`: raised by the next new starts."""

    def __init__(self, world: MachineWorld, *, slots_per_machine: int = 2) -> None:
        self.world = world
        self.is_cut_off = False
        self.refusals: list[NoCapacity] = []
        self.lost_replies = 0
        self._slots_per_machine = slots_per_machine
        self._latest: Records | None = None
        self._epoch = -1
        self._began_at = 0.0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            isolation=Isolation.CONTAINER, labels={"arch": ARCH}, description="machines in a story"
        )

    @property
    def shape(self) -> PoolShape:
        slots = MACHINES_MAX * self._slots_per_machine
        return PoolShape(slots=slots, budget=Budget(cpu_millis=slots * 1000, memory_bytes=slots << 30))

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def _records(self, given: Records | None = None) -> Records:
        """Those of the latest ownership. With a new one the silence of every machine is counted anew."""
        if self.is_cut_off:
            raise Unreachable("the cloud does not answer")
        if given is not None:
            self._latest = given
        if self._latest is None:
            raise Unreachable("dispatch has not handed over the pool's records yet")
        if self._latest.epoch != self._epoch:
            self._began_at, self._epoch = await self._latest.now(), self._latest.epoch
        return self._latest

    # -- room -----------------------------------------------------------------------------------------------------
    async def can_dequeue(self, requirements: Requirements) -> Availability:
        records = await self._records()
        if requirements.arch not in (None, ARCH):
            return never(f"its machines have arch {ARCH}, the job asks for {requirements.arch}")
        free = sum(machine.free_slots for machine in await self._heard(records))
        return now(free) if free else soon(WaitCode.PLACE_STARTING, "a machine has to start for it")

    async def handle_queue_size(self, demand: Demand, records: Records) -> Supply:
        """As many machines as the demand fills, within the bounds; idle ones go only when nothing waits."""
        records = await self._records(records)
        await self._carry_out(records)
        for machine in await self._living(records):
            await self._is_fenced(records, machine.name)  # an idle one is nobody's to notice
        await self._end_drained(records)
        queued = sum(one.queued for one in demand.classes)
        await self._finish_drains(records, to=MachineState.READY if queued else MachineState.ENDING)
        living = await self._working(records)
        busy = sum(machine.held for machine in living)
        wanted = min(MACHINES_MAX, -(-(queued + busy) // self._slots_per_machine))
        if len(living) < wanted:
            await self._grow(records, living, wanted)
        elif not queued:
            await self._end_idle(records, living, len(living) - wanted)
        return self._supply(await self._living(records))

    def _supply(self, machines: Sequence[Machine]) -> Supply:
        starting = sum(machine.contact_at is None for machine in machines)
        return Supply(
            slots=len(machines) * self._slots_per_machine,
            idle=sum(machine.free_slots for machine in machines),
            starting=starting * self._slots_per_machine,
        )

    async def _living(self, records: Records) -> list[Machine]:
        return [one for one in await records.list_machines() if one.state is not MachineState.ENDING]

    async def _working(self, records: Records) -> list[Machine]:
        """Those that nobody wants drained: the demand is theirs."""
        return [one for one in await self._living(records) if one.drain_asked_at is None]

    async def _heard(self, records: Records) -> list[Machine]:
        at = await records.now()
        return [one for one in await records.list_machines() if not self._is_silent(one, at)]

    # -- the fleet ------------------------------------------------------------------------------------------------
    async def _grow(self, records: Records, living: Sequence[Machine], wanted: int) -> None:
        """The rows first (I3): who dies here finds them, and creates what they say."""
        numbers = [machine_number(one.name) or 0 for one in await records.list_machines(with_gone=True)]
        first = max(numbers, default=0) + 1
        for number in range(first, first + wanted - len(living)):
            await records.intend_machine(machine_name("test", POOL, number), slots=self._slots_per_machine)
        await self._carry_out(records)

    async def _carry_out(self, records: Records) -> None:
        """Brings the cloud to what the rows say: creates what is intended, destroys what is ending."""
        for machine in await records.list_machines():
            if machine.state is MachineState.INTENDED:
                self.world.launch(machine.name)
                await records.change_machine(
                    machine.name, seen=MachineState.INTENDED, to=MachineState.STARTING
                )
            elif machine.state is MachineState.ENDING:
                self.world.terminate(machine.name)
                await records.change_machine(machine.name, seen=MachineState.ENDING, to=MachineState.GONE)

    async def _finish_drains(self, records: Records, *, to: MachineState) -> None:
        """What an owner left draining goes back to work while something waits, or ends."""
        for machine in await self._living(records):
            if machine.state is MachineState.DRAINING:
                await records.change_machine(machine.name, seen=MachineState.DRAINING, to=to)
        await self._carry_out(records)

    async def _end_idle(self, records: Records, living: Sequence[Machine], count: int) -> None:
        at = await records.now()
        for machine in [one for one in living if not one.held and not self._is_silent(one, at)][:count]:
            await self._end(records, machine)
        await self._carry_out(records)

    async def _end_drained(self, records: Records) -> None:
        """What an operator drained ends once it holds nothing; one that never came up at once."""
        for machine in await self._living(records):
            if machine.drain_asked_at is not None and not machine.held:
                await self._end(records, machine)
        await self._carry_out(records)

    async def _end(self, records: Records, machine: Machine) -> None:
        if machine.state in (MachineState.INTENDED, MachineState.STARTING):
            await records.change_machine(machine.name, seen=machine.state, to=MachineState.ENDING)
            return
        for seen, to in (
            (MachineState.READY, MachineState.DRAINING),
            (MachineState.DRAINING, MachineState.ENDING),
        ):
            if not await records.change_machine(machine.name, seen=seen, to=to):
                break  # it is busy by now

    async def _is_fenced(self, records: Records, name: str) -> bool:
        """Whether it is gone for certain, or past the time at which it stopped itself: that is recorded, then ended."""
        machine = {one.name: one for one in await records.list_machines(with_gone=True)}.get(name)
        if machine is None or machine.state is MachineState.GONE or machine.fenced_at is not None:
            await self._carry_out(records)
            return True
        if name not in self.world.machines and machine.state is not MachineState.INTENDED:
            reason = "the cloud says that it is gone"
        elif self._is_silent(machine, await records.now()):
            reason = f"silent for more than {LEASE_S:g} s"
        else:
            return False
        await records.fence_machine(name, reason)
        await self._carry_out(records)
        return True

    def _is_silent(self, machine: Machine, at: float) -> bool:
        heard_at = max(machine.contact_at or machine.intended_at, self._began_at)
        return at - heard_at >= LEASE_S + FENCE_MARGIN_S

    # -- attempts -------------------------------------------------------------------------------------------------
    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        records = await self._records(context.records)
        was_taken = False
        async with contextlib.aclosing(records.watch(attempt.key, timer_s=CONTACT_S)) as watching:
            async for binding in watching:
                await self._records()
                await self._tell(binding, context)
                if binding.outcome is not None:
                    return binding.outcome
                if binding.is_unwanted or (was_taken and binding.taken_at is None):
                    return DESTROYED
                was_taken = binding.taken_at is not None
                await self._advance(records, binding, attempt, context)
        raise Unreachable(f"the ledger has no attempt {attempt.key.resource_name}")

    async def _tell(self, binding: Binding, context: RunContext) -> None:
        await context.record_phase("preparing", binding.claimed_at)
        for name, at in binding.phases.items():
            await context.record_phase(name, at)
        if binding.machine is not None:
            await context.record_placement({"machine": binding.machine})
        if said := self.world.printed.get(binding.key):
            offset = await context.log.size("000", "stdout")
            await context.log.append("000", "stdout", offset, said[offset:])
        if binding.outcome is not None:
            await context.record_outputs(binding.outputs)

    async def _advance(
        self, records: Records, binding: Binding, attempt: AttemptRequest, context: RunContext
    ) -> None:
        """One step of it, each a compare-and-set: the watch shows what came of it."""
        if binding.state is not BindingState.TAKEN and await self._withdrawn(records, binding, attempt):
            return
        if binding.state is BindingState.UNBOUND:
            await self._assign(records, binding.key, context)
            return
        assert binding.machine is not None
        if await self._is_fenced(records, binding.machine) and not await records.unbind(binding.key):
            seen = "running" in binding.phases
            await records.end(binding.key, lost(f"{binding.machine} is gone", was_seen=seen))

    async def _withdrawn(self, records: Records, binding: Binding, attempt: AttemptRequest) -> bool:
        """Whether it ends before any machine took it: it was stopped, or waited too long."""
        start_s = attempt.spec.limits.start_s
        if binding.stop_grace_s is not None:
            outcome = NEVER_STARTED
        elif await records.now() - binding.claimed_at >= start_s:
            reason = Reason(code=ReasonCode.START_TIMEOUT, message=f"no machine took it within {start_s:g} s")
            outcome = Outcome(kind=OutcomeKind.TIMED_OUT, reason=reason, was_seen=False)
        else:
            return False
        return await records.end(binding.key, outcome) is not None

    async def _assign(self, records: Records, key: AttemptKey, context: RunContext) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        for machine in await self._heard(records):
            if machine.free_slots and await records.bind(key, machine.name):
                if self.lost_replies:
                    self.lost_replies -= 1
                    raise Unreachable("the reply to the start was lost")
                return
        living = await self._living(records)
        if len(living) < MACHINES_MAX and all(machine.contact_at is not None for machine in living):
            if not context.may_create(CREATE_DEADLINE_S):
                raise Unreachable("the lease of the pool ends before a create would")
            await self._grow(records, living, len(living) + 1)
        await context.record_progress("waiting for a machine to start")

    async def stop_job(self, key: AttemptKey, *, grace_s: float) -> None:
        await (await self._records()).ask_stop(key, grace_s=grace_s)

    # -- resources ------------------------------------------------------------------------------------------------
    async def list_resources(self) -> ResourceListing:
        records = await self._records()
        attempts = [
            Resource(
                name=binding.key.resource_name,
                created_at=binding.claimed_at,
                is_running=binding.state is BindingState.TAKEN,
            )
            for binding in await records.list_bindings()
        ]
        machines = [Resource(name=name, created_at=0.0) for name in self.world.machines]
        return ResourceListing(resources=(*attempts, *machines), is_complete=True)

    async def destroy_resource(self, name: str) -> None:
        """Of an attempt: returns once its machine has dropped it, or is fenced. A machine is terminated."""
        records = await self._records()
        key = AttemptKey.from_resource_name(name)
        if key is not None:
            await self._release(records, key)
        elif machine_number(name) is not None:
            self.world.terminate(name)

    async def _release(self, records: Records, key: AttemptKey) -> None:
        try:
            async with asyncio.timeout(DESTROY_DEADLINE_S):
                while not await records.release(key):
                    binding = await records.get_binding(key)
                    if binding is None or binding.machine is None:
                        return
                    if not await self._is_fenced(records, binding.machine):
                        await asyncio.sleep(CONTACT_S)  # until its machine calls in
        except TimeoutError:
            raise Unreachable(f"{key.resource_name}: its machine does not answer") from None

    async def check(self) -> Sequence[Finding]:
        await self._records()
        return (Finding(name="cloud", ok=True, message="the cloud answers"),)
