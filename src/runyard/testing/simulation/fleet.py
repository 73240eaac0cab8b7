"""The machines of a history: those of testing/machine_world.py, calling in at the history's own ledger over a line that
fails, and hit by what happens to machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, cast

from runyard.ledger.port import Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import LedgerUnavailable
from runyard.model.outcome import Outcome
from runyard.providers.port import AttemptRequest
from runyard.testing.machine_world import Machine, MachineWorld, Work
from runyard.testing.plays import Play
from runyard.testing.simulation.scenario import QUIET_AT_S, Mishap
from runyard.testing.virtual_time import call_outside


class Fleet:
    """One pool's machines. `world` is what its provider gets; `begun` remembers what ever ran."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        script: Callable[[AttemptRequest], Play],
        checked: Callable[[str, str, tuple[Any, ...], object], None],
        failing: int,
        dice: Random,
    ) -> None:
        line = _Line(ledger, checked=checked, failing=failing, dice=dice)
        self.world = _Cloud(script=script, ledger=cast(Ledger, line))
        self.world.on_start = self._began
        self.begun: dict[str, Work] = {}
        self.starts: dict[str, int] = {}
        self.on_start: Callable[[str], None] = lambda name: None

    def _began(self, key: AttemptKey, work: Work) -> None:
        name = key.resource_name
        self.begun[name] = work
        self.starts[name] = self.starts.get(name, 0) + 1
        self.on_start(name)

    # -- looking on -----------------------------------------------------------------------------------------------
    def end_of(self, name: str) -> Outcome | None:
        work = self.begun.get(name)
        return None if work is None else work.outcome

    def is_running(self, name: str) -> bool:
        return any(name in running_on(machine) for machine in self.world.machines.values())

    def running(self) -> list[str]:
        return [name for machine in self.world.machines.values() for name in running_on(machine)]

    @property
    def left(self) -> list[str]:
        return list(self.world.machines)

    # -- what happens to it -----------------------------------------------------------------------------------------
    def befall(self, mishap: Mishap) -> str | None:
        """Returns which machine it hit, if there was one: a busy one, where there is one."""
        machines = self.world.machines
        names = sorted(name for name in machines if running_on(machines[name])) or sorted(machines)
        if not names:
            return None
        machine = self.world.machines[names[mishap.number % len(names)]]
        if mishap.lasts_s is None:
            self.world.vanish(machine)
        else:
            machine.is_silent = True
            call_outside(mishap.lasts_s, _recover, machine)
        return machine.name

    def reboot(self) -> None:
        """The whole fleet vanishes."""
        for machine in list(self.world.machines.values()):
            self.world.vanish(machine)

    def perish(self) -> None:
        self.reboot()
        self.is_gone = True

    @property
    def is_gone(self) -> bool:
        return self.world.is_closed

    @is_gone.setter
    def is_gone(self, is_gone: bool) -> None:
        self.world.is_closed = is_gone


class _Cloud(MachineWorld):
    """`is_closed`: nothing comes into being there."""

    is_closed = False

    def launch(self, name: str) -> None:
        if not self.is_closed:
            super().launch(name)

    def vanish(self, machine: Machine) -> None:
        """As of itself: nobody asked for it."""
        del self.machines[machine.name]
        machine.is_gone = True
        machine.work.clear()


class _Line:
    """A machine's way to the ledger: `failing` of a hundred calls do not get through, or their answers do not."""

    def __init__(
        self,
        ledger: Any,
        *,
        checked: Callable[[str, str, tuple[Any, ...], object], None],
        failing: int,
        dice: Random,
    ) -> None:
        self._ledger = ledger
        self._checked = checked
        self._failing = failing
        self._dice = dice

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            is_wrong = self._dice.randrange(100) < self._failing
            is_wrong = is_wrong and asyncio.get_running_loop().time() < QUIET_AT_S
            is_lost = is_wrong and self._dice.random() < 0.5
            if is_wrong and not is_lost:
                raise LedgerUnavailable("the service does not answer", cure="call in again")
            result = await method(*args, **kwargs)
            self._checked("machine", name, args, result)
            if is_lost:
                raise LedgerUnavailable("the service's answer was lost", cure="call in again")
            return result

        return call


def running_on(machine: Machine) -> list[str]:
    return [key.resource_name for key, work in machine.work.items() if work.outcome is None]


def _recover(machine: Machine) -> None:
    machine.is_silent = False
