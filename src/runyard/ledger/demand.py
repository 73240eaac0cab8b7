"""What waits for a pool, added up from the lanes of the queues that it serves. Pure, the same on every database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runyard.ledger.rows import Row
from runyard.model.pool import PoolSettings

CLASSES_MAX = 1000


@dataclass(slots=True)
class Waiting:
    """One class's ready jobs over all those queues."""

    class_key: str
    queued: int
    oldest_queued_at: float


def serves(settings: PoolSettings, queue: str) -> bool:
    return "*" in settings.queues or queue in settings.queues


def add_up(settings: PoolSettings, lanes: Iterable[Row]) -> list[Waiting]:
    """From the rows of LIST_OPEN_LANES: those that wait longest first, at most CLASSES_MAX."""
    by_class: dict[str, Waiting] = {}
    for lane in lanes:
        if not serves(settings, lane["queue"]):
            continue
        key, oldest = lane["class_key"], lane["oldest_queued_at"]
        waiting = by_class.setdefault(key, Waiting(key, 0, oldest))
        waiting.queued += lane["ready"]
        waiting.oldest_queued_at = min(waiting.oldest_queued_at, oldest)
    return sorted(by_class.values(), key=lambda one: (one.oldest_queued_at, one.class_key))[:CLASSES_MAX]
