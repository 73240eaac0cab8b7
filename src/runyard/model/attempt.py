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
class Progress:
    """What an attempt that is not running yet is busy with, for people to watch. `fraction` is from 0 to 1; None is
    unknown, never invented; `at` is when it was said."""

    text: str
    at: float
    fraction: float | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None


PLACEMENT_FACTS_MAX = 16
PLACEMENT_NAME_CHARS_MAX = 40
PLACEMENT_VALUE_CHARS_MAX = 300
PROGRESS_CHARS_MAX = 200


def merge_placement(known: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """The newest value of each fact, cut to what an attempt's row may carry: facts beyond PLACEMENT_FACTS_MAX are left
    out, for what describes a place must never cost the attempt that runs there."""
    merged = dict(known)
    for name, value in new.items():
        name = name[:PLACEMENT_NAME_CHARS_MAX]
        if name in merged or len(merged) < PLACEMENT_FACTS_MAX:
            merged[name] = value[:PLACEMENT_VALUE_CHARS_MAX]
    return merged


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt as the ledger holds it. `phases` maps a phase's name to the time it began; `epoch` is that of the
    ownership under which it was claimed; `charged` is the estimate that fairness took at the claim; `placement` says
    where it runs and what (machine, node, image digest); `progress` is there only while it prepares."""

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
    placement: Mapping[str, str] = field(default_factory=dict)
    progress: Progress | None = None
