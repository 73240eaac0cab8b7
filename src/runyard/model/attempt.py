"""One try of a job: its names, its phases, its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runyard.model.outcome import Outcome

UID_LENGTH = 16


class AttemptState(StrEnum):
    """`starting` from the claim to the first step, `running` from then on, `ended` once its outcome is accepted."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, order=True)
class AttemptKey:
    """The identity of an attempt: the job's uid and a number counted from 1."""

    uid: str
    number: int

    @property
    def resource_name(self) -> str:
        """The name of everything made for it, so that a repeated create collides and a listing tells what is ours."""
        return f"runyard-{self.uid}-{self.number}"

    @classmethod
    def from_resource_name(cls, name: str) -> AttemptKey | None:
        """The key in a resource's name, or None where the name is not of our form."""
        head, _, number = name.rpartition("-")
        prefix, _, uid = head.partition("-")
        if prefix != "runyard" or len(uid) != UID_LENGTH or not uid.isalnum() or not number.isdecimal():
            return None
        return cls(uid, int(number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt as the ledger holds it. `phases` maps a phase's name to the time it began; `epoch` is that of the
    ownership under which it was claimed; `charged` is the estimate that fairness took at the claim."""

    key: AttemptKey
    pool: str
    slot: int
    epoch: int
    state: AttemptState
    claimed_at: float
    started_at: float | None = None
    ended_at: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    charged: float = 0.0
