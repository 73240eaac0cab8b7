"""Which queues stand still: work that could start, and nothing that starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runyard.model.queue import Queue

STALLED_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """A queue without a start, though it has eligible work, since `since`."""

    queue: str
    since: float


def stalled_queues(queues: Iterable[Queue], now: float) -> tuple[Stalled, ...]:
    """Those with a ready job that no limit holds back, that are not paused, and from which nothing was claimed for
    STALLED_AFTER_S while that job waited. Whether a pool could take it does not count: that none can is the news."""
    return tuple(
        Stalled(queue=queue.settings.name, since=since)
        for queue in queues
        if (since := _still_since(queue)) is not None and now - since >= STALLED_AFTER_S
    )


def _still_since(queue: Queue) -> float | None:
    """None where nothing could start."""
    settings, busy = queue.settings, queue.starting + queue.running
    is_full = settings.running_max is not None and busy >= settings.running_max
    if settings.is_paused or is_full or not queue.has_eligible or queue.oldest_queued_at is None:
        return None
    return max(queue.oldest_queued_at, queue.last_claimed_at or queue.oldest_queued_at)
