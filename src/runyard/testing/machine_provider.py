"""A provider whose places are machines that join, take attempts, hang and vanish: the port fitted to far places.

It shows what a far provider owes: an attempt's row before anything is started, one winner between a withdrawal and a
machine's take, contact times counted from the later of the last contact and our own start (an outage of the service
condemns no fleet), and a fence before a loss: an attempt is `lost` only once its machine is gone or past the time at
which it stops itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from runyard.model.attempt import AttemptKey
from runyard.model.errors import NoCapacity, Unreachable
from runyard.model.finding import Finding
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, lost
from runyard.model.pool import Availability, Budget, Demand, Supply, WaitCode, never, now, soon
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.port import (
    AttemptRequest,
    Capabilities,
    PoolShape,
    Resource,
    ResourceListing,
    RunContext,
)
from runyard.testing.machine_world import CONTACT_S, LEASE_S, Machine, MachineWorld, Row, Stage
from runyard.testing.plays import NEVER_STARTED

ARCH = "amd64"
CREATE_DEADLINE_S = 5.0
MACHINES_MAX = 4
FENCE_MARGIN_S = 2 * CONTACT_S
DESTROY_DEADLINE_S = 10.0


class MachineProvider:
    """`is_cut_off`: the cloud and the register's service do not answer. `refusals`: raised by the next new starts."""

    def __init__(self, world: MachineWorld, *, slots_per_machine: int = 2) -> None:
        self.world = world
        self.is_cut_off = False
        self.refusals: list[NoCapacity] = []
        self.lost_replies = 0
        self._slots_per_machine = slots_per_machine
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
        self._began_at = self.world.now()

    async def close(self) -> None:
        return None

    # -- room -----------------------------------------------------------------------------------------------------
    async def can_dequeue(self, requirements: Requirements) -> Availability:
        self._need_connection()
        if requirements.arch not in (None, ARCH):
            return never(f"its machines have arch {ARCH}, the job asks for {requirements.arch}")
        free = sum(self._free_slots(machine) for machine in self.world.machines.values())
        return now(free) if free else soon(WaitCode.PLACE_STARTING, "a machine has to start for it")

    async def handle_queue_size(self, demand: Demand) -> Supply:
        """As many machines as the demand fills, within the bounds; idle ones go only when nothing waits."""
        self._need_connection()
        queued = sum(one.queued for one in demand.classes)
        busy = sum(row.stage is not Stage.ENDED for row in self.world.register.values())
        wanted = min(MACHINES_MAX, -(-(queued + busy) // self._slots_per_machine))
        while len(self.world.machines) < wanted:
            self.world.launch()
        if not queued:
            self._end_idle(wanted)
        machines = list(self.world.machines.values())
        return Supply(
            slots=len(machines) * self._slots_per_machine,
            idle=sum(self._free_slots(machine) for machine in machines),
            starting=sum(machine.contact_at is None for machine in machines) * self._slots_per_machine,
        )

    def _end_idle(self, wanted: int) -> None:
        idle = [one.name for one in self.world.machines.values() if not self._held(one) and not one.is_silent]
        for name in idle[: max(0, len(self.world.machines) - wanted)]:
            self.world.terminate(name)

    def _held(self, machine: Machine) -> int:
        rows = self.world.register.values()
        return sum(row.machine == machine.name and row.stage is not Stage.ENDED for row in rows)

    def _free_slots(self, machine: Machine) -> int:
        if machine.contact_at is None or self._is_silent(machine):
            return 0
        return machine.slots - self._held(machine)

    # -- attempts -------------------------------------------------------------------------------------------------
    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        self._need_connection()
        if attempt.key.resource_name not in self.world.register and not context.may_create(CREATE_DEADLINE_S):
            raise Unreachable("the lease of the pool ends before a create would")
        row = self._intend(attempt)
        await context.record_phase("preparing", row.created_at)
        while row.stage is not Stage.ENDED:
            if row.started_at is not None:
                await context.record_phase("running", row.started_at)
            self._advance(row)
            await self._next_change(row)
            self._need_connection()
        return await self._told(row, context)

    def _intend(self, attempt: AttemptRequest) -> Row:
        """The row, before anything is started by it. A repeat finds it."""
        name = attempt.key.resource_name
        if name not in self.world.register:
            if self.refusals:
                raise self.refusals.pop(0)
            self.world.register[name] = Row(attempt, self.world.now())
            if self.lost_replies:
                self.lost_replies -= 1
                raise Unreachable("the reply to the start was lost")
        return self.world.register[name]

    def _advance(self, row: Row) -> None:
        assert row.request is not None
        if row.stage is Stage.INTENDED:
            self._assign(row)
        elif row.machine is not None and self._is_fenced(row):
            row.end(lost(f"{row.machine} is gone", was_seen=row.started_at is not None))
        if row.stage in (Stage.INTENDED, Stage.ASSIGNED):
            self._give_up_in_time(row, row.request)

    def _assign(self, row: Row) -> None:
        machines = [one for one in self.world.machines.values() if self._free_slots(one) > 0]
        if machines:
            row.machine, row.stage = machines[0].name, Stage.ASSIGNED
        elif len(self.world.machines) < MACHINES_MAX and not any(
            one.contact_at is None for one in self.world.machines.values()
        ):
            self.world.launch()

    def _is_fenced(self, row: Row) -> bool:
        """Its machine is gone for certain, or past the time at which it stopped itself. One that is late is ended."""
        assert row.machine is not None
        machine = self.world.machines.get(row.machine)
        if machine is None or machine.is_gone:
            return True
        if self._is_silent(machine):
            self.world.terminate(machine.name)
            return True
        return False

    def _is_silent(self, machine: Machine) -> bool:
        heard_at = max(machine.contact_at or 0.0, self._began_at)
        return self.world.now() - heard_at >= LEASE_S + FENCE_MARGIN_S

    def _give_up_in_time(self, row: Row, attempt: AttemptRequest) -> None:
        """A withdrawal before any machine took it: both steps are compare-and-set on the one row."""
        start_s = attempt.spec.limits.start_s
        if self.world.now() - row.created_at >= start_s:
            reason = Reason(code=ReasonCode.START_TIMEOUT, message=f"no machine took it within {start_s:g} s")
            row.end(Outcome(kind=OutcomeKind.TIMED_OUT, reason=reason, was_seen=False))

    async def _next_change(self, row: Row) -> None:
        if row.stage is Stage.ENDED:
            return
        row.changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONTACT_S):
                await row.changed.wait()

    async def _told(self, row: Row, context: RunContext) -> Outcome:
        assert row.outcome is not None
        if row.started_at is not None:
            await context.record_phase("running", row.started_at)
        if row.outputs:
            await context.record_outputs(row.outputs)
        return row.outcome

    async def stop_job(self, key: AttemptKey, *, grace_s: float) -> None:
        self._need_connection()
        row = self.world.register.get(key.resource_name)
        if row is None:
            row = self.world.register[key.resource_name] = Row(None, self.world.now())
        if row.stage in (Stage.INTENDED, Stage.ASSIGNED):
            row.end(NEVER_STARTED)
        elif row.stage is Stage.TAKEN and row.stop_grace_s is None:
            row.stop_grace_s = grace_s

    # -- resources ------------------------------------------------------------------------------------------------
    async def list_resources(self) -> ResourceListing:
        self._need_connection()
        attempts = [
            Resource(name=name, created_at=row.created_at, is_running=row.stage is Stage.TAKEN)
            for name, row in self.world.register.items()
        ]
        machines = [Resource(name=name, created_at=0.0) for name in self.world.machines]
        return ResourceListing(resources=(*attempts, *machines), is_complete=True)

    async def destroy_resource(self, name: str) -> None:
        """Returns once the machine has dropped it, or is fenced; the row goes last."""
        self._need_connection()
        row = self.world.register.get(name)
        if row is None:
            return
        was_taken = row.stage is Stage.TAKEN
        row.is_unwanted = was_taken
        row.end(lost("it was destroyed", was_seen=row.started_at is not None))
        if was_taken:
            await self._until_dropped(name, row)
        self.world.register.pop(name, None)

    async def _until_dropped(self, name: str, row: Row) -> None:
        try:
            async with asyncio.timeout(DESTROY_DEADLINE_S):
                while row.machine is not None and not self._is_fenced(row):  # noqa: ASYNC110 -- time fences too
                    await asyncio.sleep(CONTACT_S)
        except TimeoutError:
            raise Unreachable(f"{name}: its machine {row.machine} does not answer") from None

    async def check(self) -> Sequence[Finding]:
        self._need_connection()
        return (Finding(name="cloud", ok=True, message="the cloud answers"),)

    def _need_connection(self) -> None:
        if self.is_cut_off:
            raise Unreachable("the cloud does not answer")
