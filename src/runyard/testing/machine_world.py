"""Simulated machines over a real ledger: they join, call in for work, hang, lose the network and vanish.

A machine acts only when it calls in (`CONTACT_S`), and what it may start, stop or drop it reads in the rows that
`Records` wrote: the ledger's own methods for machines, which a real agent reaches through the API. It stops what it
runs by itself once it could not call in for `LEASE_S`: that moment is what makes a silent machine's end provable
without hearing from it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from runyard.dispatch.follow import request_of
from runyard.dispatch.ownership import PoolLease
from runyard.dispatch.records import LeaseRecords
from runyard.dispatch.renewal import LoopRenewal
from runyard.ledger.port import ClaimRequest, Ledger
from runyard.ledger.sqlite.ledger import SqliteLedger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import LedgerUnavailable
from runyard.model.job import JobSpec, NewJob, Step
from runyard.model.machine import Binding, BindingState, MachineState
from runyard.model.outcome import Outcome, lost
from runyard.model.pool import Budget, PoolSettings
from runyard.model.requirements import Isolation
from runyard.providers.port import AttemptRequest
from runyard.testing.plays import CANCELED, Play
from runyard.testing.virtual_time import call_outside

POOL = "machines"
CONTACT_S = 1.0
LEASE_S = 30.0
BOOT_S = 5.0
FOREVER_S = 1e9
PLENTY = Budget(cpu_millis=1 << 30, memory_bytes=1 << 60)


class WorldClock:
    """The loop's time; the ledger's may be set ahead of it, as after an outage of the service."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.offset_s

    def boottime(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Work:
    """An attempt as its machine knows it: what runs, or the end that waits to be reported."""

    started_at: float
    play: Play
    is_stopping: bool = False
    outcome: Outcome | None = None


@dataclass(slots=True)
class Machine:
    """`contact_at` is when it last got through (None: never), by its own clock; `is_silent`: it lives and cannot call
    in; `is_gone`: it exists no more."""

    name: str
    slots: int
    contact_at: float | None = None
    is_silent: bool = False
    is_gone: bool = False
    work: dict[AttemptKey, Work] = field(default_factory=dict)
    begun: set[AttemptKey] = field(default_factory=set)


class MachineWorld:
    """The machines, the cloud that has them, and the ledger with the pool's one owner. All outlive every provider
    object. `requests` is what a machine is told of an attempt that it took, where it is not what the ledger has;
    `printed` is what machines sent of the logs. With a `ledger` of somebody's the machines call in there, and `open` is
    not for it. `on_start` and `on_terminate` look on."""

    def __init__(
        self, *, script: Callable[[AttemptRequest], Play], slots: int = 2, ledger: Ledger | None = None
    ) -> None:
        self._script = script
        self._slots = slots
        self.clock = WorldClock()
        self.ledger = ledger or SqliteLedger(":memory:", clock=self.clock, is_threaded=False)
        self.on_start: Callable[[AttemptKey, Work], None] = lambda key, work: None
        self.on_terminate: Callable[[Machine], None] = lambda machine: None
        self._lease = PoolLease(
            POOL,
            ledger=self.ledger,
            renewal=LoopRenewal(self.ledger),
            owner="test",
            clock=self.clock,
            lease_s=FOREVER_S,
        )
        self.records = LeaseRecords(self.ledger, self._lease)
        self.requests: dict[AttemptKey, AttemptRequest] = {}
        self.machines: dict[str, Machine] = {}
        self.starts: dict[AttemptKey, int] = defaultdict(int)
        self.printed: dict[AttemptKey, bytes] = {}
        self._is_open = False
        self._calling: set[asyncio.Task[None]] = set()

    async def open(self, *uids: str) -> None:
        """Takes the pool and claims an attempt of a job for each uid. The second time nothing happens."""
        if self._is_open:
            return
        self._is_open = True
        await self.ledger.open()
        settings = PoolSettings(
            name=POOL, provider=POOL, slots=len(uids), budget=PLENTY, isolation=Isolation.CONTAINER
        )
        await self.ledger.put_pool(settings)
        await self._lease.take()
        spec = JobSpec(steps=(Step(name="main", command=("true",)),))
        await self.ledger.submit([NewJob(uid=uid, id=uid, spec=spec, spec_hash="") for uid in uids])
        rooms = {spec.requirements.class_key(): len(uids)}
        await self.ledger.claim(
            ClaimRequest(
                fence=self._lease.fence, free_slots=tuple(range(len(uids))), rooms=rooms, budget=PLENTY
            )
        )

    async def close(self) -> None:
        for machine in self.machines.values():
            machine.is_gone = True
        await self.ledger.close()

    def now(self) -> float:
        return self.clock.boottime()

    # -- the cloud ------------------------------------------------------------------------------------------------
    def launch(self, name: str) -> None:
        """A machine that joins after BOOT_S. Under a name that there is, it is that one."""
        if name not in self.machines:
            machine = self.machines[name] = Machine(name, self._slots)
            call_outside(BOOT_S, self._call_in, machine)

    def terminate(self, name: str) -> None:
        """Gone with all that ran on it. Missing is success."""
        machine = self.machines.pop(name, None)
        if machine is not None:
            self.on_terminate(machine)
            machine.is_gone = True
            machine.work.clear()

    def machine_of(self, key: AttemptKey) -> Machine:
        """The one that runs it."""
        (machine,) = (one for one in self.machines.values() if key in one.work)
        return machine

    # -- a machine's own doing ------------------------------------------------------------------------------------
    def _call_in(self, machine: Machine) -> None:
        if machine.is_gone:
            return
        if machine.is_silent:
            self._stop_itself_in_time(machine)
        else:
            task = asyncio.get_running_loop().create_task(self._call(machine))
            self._calling.add(task)
            task.add_done_callback(self._calling.discard)
        call_outside(CONTACT_S, self._call_in, machine)

    def _stop_itself_in_time(self, machine: Machine) -> None:
        if machine.contact_at is not None and self.now() - machine.contact_at >= LEASE_S:
            for work in machine.work.values():
                _end_work(work, lost("its machine was cut off and stopped it", was_seen=True))

    async def _call(self, machine: Machine) -> None:
        with contextlib.suppress(LedgerUnavailable):  # it calls in again
            await self._talk(machine)

    async def _talk(self, machine: Machine) -> None:
        """One contact: what ended is reported, what is wanted is done."""
        row = await self.ledger.contact_machine(machine.name, slots=machine.slots)
        machine.contact_at = self.now()
        if row is None or row.state in (MachineState.ENDING, MachineState.GONE):
            machine.work.clear()
            return
        for key, work in list(machine.work.items()):
            await self._report(machine, key, work)
        wanted = await self.ledger.list_bindings(POOL, machine=machine.name)
        for binding in wanted:
            await self._obey(machine, binding)
        for key in machine.work.keys() - {binding.key for binding in wanted}:
            del machine.work[key]

    async def _report(self, machine: Machine, key: AttemptKey, work: Work) -> None:
        await self.ledger.report_attempt(
            machine.name,
            key,
            phases={"running": work.started_at},
            outcome=work.outcome,
            outputs=work.play.outputs if work.outcome else None,
        )
        if work.outcome is not None:
            machine.work.pop(key, None)

    async def _obey(self, machine: Machine, binding: Binding) -> None:
        work = machine.work.get(binding.key)
        if binding.is_unwanted:
            machine.work.pop(binding.key, None)
            await self.ledger.drop_attempt(machine.name, binding.key)
        elif binding.state in (BindingState.BOUND, BindingState.TAKEN) and binding.key not in machine.begun:
            # Taken already: the answer to the take was lost, for what it began it remembers.
            if await self.ledger.take_attempt(machine.name, binding.key) and not machine.is_gone:
                self._begin(machine, binding.key, await self._request_of(binding.key))
                await self._report(machine, binding.key, machine.work[binding.key])
        elif work is not None and binding.stop_grace_s is not None and not work.is_stopping:
            work.is_stopping = True
            grace_s = binding.stop_grace_s if work.play.ignores_term else 0.0
            call_outside(grace_s, _end_work, work, CANCELED)

    async def _request_of(self, key: AttemptKey) -> AttemptRequest:
        if key in self.requests:
            return self.requests[key]
        job = await self.ledger.get_job(key.uid)
        assert job is not None
        return request_of(job, key, slot=0, epoch=0)

    def _begin(self, machine: Machine, key: AttemptKey, request: AttemptRequest) -> None:
        self.starts[key] += 1
        self.printed[key] = self.printed.get(key, b"") + self._script(request).prints
        work = machine.work[key] = Work(self.clock.now(), self._script(request))
        machine.begun.add(key)
        self.on_start(key, work)
        for after_s, outcome in work.play.ends(request):
            call_outside(after_s, _end_work, work, outcome)


def _end_work(work: Work, outcome: Outcome) -> None:
    if work.outcome is None:
        work.outcome = outcome
