"""What the last days looked like: figures of queues and pools in buckets of a few seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BUCKET_S = 15
SIGN_OF_LIFE_S = 60
"""The gauges of all queues are written at least this often, also where they are zero."""

ALL = "*"
"""The name under which the sum over all queues, or all pools, stands; none of them can have it."""


class Subject(StrEnum):
    QUEUE = "queue"
    POOL = "pool"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One figure of a queue or pool. `bucket` is the moment at which it ends, a multiple of BUCKET_S. Gauges (`queued`,
    `starting`, `running`, `slots`) have their value in `amount` and no writer; counts (`outcome:KIND`, of pools also
    `phase:NAME`) have how many, together `seconds`, and who counted."""

    subject: Subject
    name: str
    bucket: int
    figure: str
    amount: float
    seconds: float = 0.0
    writer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySum:
    """One figure over a stretch of time that begins at `at`: the highest of a gauge, the sums of a count."""

    at: int
    figure: str
    highest: float
    amount: float
    seconds: float
