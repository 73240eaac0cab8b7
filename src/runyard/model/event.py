"""State changes as facts, in order: the feed that callers follow."""

from __future__ import annotations

from dataclasses import dataclass

from runyard.model.outcome import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """A job's change of state. `sequence` grows with commit order within one ledger; `attempt` is 0 before any."""

    sequence: int
    at: float
    tenant: str
    queue: str
    job_id: str
    uid: str
    state: str
    attempt: int = 0
    reason: Reason | None = None
