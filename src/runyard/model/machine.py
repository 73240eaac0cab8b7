"""Machines: rented or registered computers whose agents take attempts, and what binds an attempt to one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runyard.model.attempt import UID_LENGTH, AttemptKey
from runyard.model.outcome import Outcome


class MachineState(StrEnum):
    """`intended` before its create, `starting` once the create was asked for, `ready` from its first contact on,
    `draining` takes nothing new, `ending` is being destroyed, `gone` was seen gone for certain."""

    INTENDED = "intended"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ENDING = "ending"
    GONE = "gone"


_S = MachineState
CHANGES: Mapping[MachineState, frozenset[MachineState]] = {
    _S.INTENDED: frozenset({_S.STARTING, _S.ENDING, _S.GONE}),
    _S.STARTING: frozenset({_S.READY, _S.ENDING, _S.GONE}),
    _S.READY: frozenset({_S.DRAINING}),
    _S.DRAINING: frozenset({_S.READY, _S.ENDING}),
    _S.ENDING: frozenset({_S.GONE}),
    _S.GONE: frozenset(),
}
"""What may follow what. From `ready` nothing leads to an end but through `draining`, which no busy machine enters (I9);
a recorded fence is the one exception, and is no change of this table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine as the ledger holds it. `since` is when it came into its state; `contact_at` its agent's last contact
    (None: none yet); `held` counts the unsettled attempts bound to it; `fenced_at` is set once it was condemned: from
    then on it takes nothing, and it may be destroyed although it is busy. `drain_asked_at`: since then an
    operator wants it to take nothing new, and to end once it holds nothing. `facts` are the provider's own."""

    name: str
    pool: str
    state: MachineState
    slots: int
    epoch: int
    intended_at: float
    since: float
    contact_at: float | None = None
    fenced_at: float | None = None
    fence_reason: str = ""
    drain_asked_at: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    held: int = 0

    @property
    def free_slots(self) -> int:
        is_open = self.state is MachineState.READY and self.drain_asked_at is None
        return max(0, self.slots - self.held) if is_open else 0


class BindingState(StrEnum):
    """`unbound`: no machine may start it. `bound`: one may take it. `taken`: that one did. `ended`: with an outcome."""

    UNBOUND = "unbound"
    BOUND = "bound"
    TAKEN = "taken"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """An attempt and its machine. `stop_grace_s` is set once somebody asked it to end; `is_unwanted`: its machine is to
    drop all that there is of it; `is_settled`: the ledger has accepted an outcome of the attempt."""

    key: AttemptKey
    claimed_at: float
    state: BindingState = BindingState.UNBOUND
    machine: str | None = None
    taken_at: float | None = None
    stop_grace_s: float | None = None
    is_unwanted: bool = False
    is_settled: bool = False
    phases: Mapping[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)


def machine_name(installation: str, pool: str, number: int) -> str:
    """The name of a pool's machine: the same for the same three, so that a repeated create collides; another
    installation's in the same account is another name."""
    digest = hashlib.sha256(f"{installation}\n{pool}".encode()).hexdigest()
    return f"runyard-{digest[:UID_LENGTH]}-m{number}"


def machine_number(name: str) -> int | None:
    """The number in a machine's name; None where the name is not of that form."""
    head, _, number = name.rpartition("-m")
    prefix, _, digest = head.partition("-")
    is_ours = prefix == "runyard" and len(digest) == UID_LENGTH and number.isascii() and number.isdecimal()
    return int(number) if is_ours else None
