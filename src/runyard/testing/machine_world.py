"""Simulated machines: they join, call in for work, hang, lose the network and vanish.

A machine acts only when it calls in (`CONTACT_S`), and what it may start it is told by the register: the durable rows
that dispatch will keep for a provider (DESIGN 3, `Records`). It stops what it runs by itself once it could not call in
for `LEASE_S`: that moment is what makes a silent machine's end provable without hearing from it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from runyard.model.outcome import Outcome
from runyard.providers.port import AttemptRequest
from runyard.testing.plays import CANCELED, Play
from runyard.testing.virtual_time import call_outside

CONTACT_S = 1.0
LEASE_S = 30.0
BOOT_S = 5.0


class Stage(StrEnum):
    """Where an attempt's row stands; each step is a compare-and-set, so that a machine and an owner never both win."""

    INTENDED = "intended"
    ASSIGNED = "assigned"
    TAKEN = "taken"
    ENDED = "ended"


@dataclass(slots=True)
class Row:
    """The register's row of one attempt. `is_unwanted`: its machine is to end it and forget it."""

    request: AttemptRequest | None
    created_at: float
    stage: Stage = Stage.INTENDED
    machine: str | None = None
    started_at: float | None = None
    stop_grace_s: float | None = None
    is_unwanted: bool = False
    outcome: Outcome | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, outcome: Outcome) -> None:
        """The first end counts."""
        if self.stage is not Stage.ENDED:
            self.stage, self.outcome = Stage.ENDED, outcome
        self.changed.set()


@dataclass(slots=True)
class Work:
    """An attempt as its machine knows it: what runs, or the end that waits to be reported."""

    request: AttemptRequest
    started_at: float
    play: Play
    outcome: Outcome | None = None


@dataclass(slots=True)
class Machine:
    """`contact_at` is None until it joined; `is_silent`: it lives and cannot call in; `is_gone`: it exists no more."""

    name: str
    slots: int
    contact_at: float | None = None
    is_silent: bool = False
    is_gone: bool = False
    work: dict[str, Work] = field(default_factory=dict)


class MachineWorld:
    """The machines and the register. Both outlive every provider object."""

    def __init__(self, *, script: Callable[[AttemptRequest], Play], slots: int = 2) -> None:
        self._script = script
        self._slots = slots
        self.machines: dict[str, Machine] = {}
        self.register: dict[str, Row] = {}
        self.starts: dict[str, int] = defaultdict(int)
        self._made = 0

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    # -- the fleet ------------------------------------------------------------------------------------------------
    def launch(self) -> Machine:
        """A machine that joins after BOOT_S."""
        self._made += 1
        machine = Machine(f"runyard-machine-{self._made}", self._slots)
        self.machines[machine.name] = machine
        call_outside(BOOT_S, self._call_in, machine)
        return machine

    def terminate(self, name: str) -> None:
        """Gone with all that ran on it. Missing is success."""
        machine = self.machines.pop(name, None)
        if machine is not None:
            machine.is_gone = True
            machine.work.clear()

    def machine_of(self, attempt: str) -> Machine:
        name = self.register[attempt].machine
        assert name is not None
        return self.machines[name]

    # -- a machine's own doing ------------------------------------------------------------------------------------
    def _call_in(self, machine: Machine) -> None:
        if machine.is_gone:
            return
        if machine.is_silent:
            self._stop_itself_in_time(machine)
        else:
            machine.contact_at = self.now()
            self._report(machine)
            self._obey(machine)
            self._take_assigned(machine)
        call_outside(CONTACT_S, self._call_in, machine)

    def _stop_itself_in_time(self, machine: Machine) -> None:
        if machine.contact_at is not None and self.now() - machine.contact_at >= LEASE_S:
            machine.work.clear()

    def _take_assigned(self, machine: Machine) -> None:
        for name, row in self.register.items():
            if row.stage is Stage.ASSIGNED and row.machine == machine.name and row.request is not None:
                row.stage, row.started_at = Stage.TAKEN, self.now()
                self._begin(machine, name, row.request)
                row.changed.set()

    def _begin(self, machine: Machine, name: str, request: AttemptRequest) -> None:
        self.starts[name] += 1
        work = machine.work[name] = Work(request, self.now(), self._script(request))
        for after_s, outcome in work.play.ends(request):
            call_outside(after_s, _end_work, work, outcome)

    def _report(self, machine: Machine) -> None:
        for name, work in list(machine.work.items()):
            if work.outcome is not None:
                row = self.register.get(name)
                if row is not None:
                    row.outputs = dict(work.play.outputs)
                    row.end(work.outcome)
                del machine.work[name]

    def _obey(self, machine: Machine) -> None:
        """Stops what it was told to stop, and drops at once what the register does not want any more."""
        for name, work in list(machine.work.items()):
            row = self.register.get(name)
            if row is None or row.is_unwanted:
                del machine.work[name]
            elif row.stop_grace_s is not None:
                grace_s = row.stop_grace_s if work.play.ignores_term else 0.0
                call_outside(grace_s, _end_work, work, CANCELED)
                row.stop_grace_s = None
        for row in self.register.values():
            if row.is_unwanted and row.machine == machine.name:
                row.changed.set()  # it is dropped here, and this contact says so
                row.machine = None


def _end_work(work: Work, outcome: Outcome) -> None:
    if work.outcome is None:
        work.outcome = outcome
