"""What becomes of a job when one of its attempts ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from runyard.model.job import Job, JobState
from runyard.model.outcome import Outcome, Reason


class RetryCost(StrEnum):
    """Which of the job's counters an ended attempt adds to."""

    INFRASTRUCTURE = "infrastructure"
    FAILURE = "failure"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The job ends, as `state`, because of `reason`."""

    state: JobState
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """The job waits again: at its old place (`keeps_place`) or as if it came now, not before `not_before`."""

    cost: RetryCost
    keeps_place: bool
    reason: Reason | None = None
    not_before: float | None = None


Verdict = Final | Requeue

Decide = Callable[[Job, Outcome, float], Verdict]
"""A pure decision (job, outcome, now) -> verdict, handed to the ledger so that it is made inside the settle
transaction, on the job as it stands there: a cancel that came first is seen."""
