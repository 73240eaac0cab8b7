"""How long each phase took in the latest jobs of the same class, beside which one job's waterfall is read. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from runyard.model.attempt import Attempt
from runyard.web.waterfall import phases_of

SAMPLES = 50
SAMPLES_MIN = 3  # fewer tell nothing of what is usual


def medians_of(attempts: Sequence[Attempt]) -> Mapping[str, float]:
    """Seconds by the name of the phase, as the waterfall names it; of those that enough of them had."""
    lasted: dict[str, list[float]] = {}
    for attempt in attempts:
        if attempt.ended_at is None:
            continue
        moments = [(attempt.claimed_at, "claimed"), *phases_of(attempt)]
        ends = [at for at, _ in moments[1:]] + [attempt.ended_at]
        for (begin, name), end in zip(moments, ends, strict=True):
            lasted.setdefault(name, []).append(end - begin)
    return {
        name: statistics.median(samples) for name, samples in lasted.items() if len(samples) >= SAMPLES_MIN
    }
