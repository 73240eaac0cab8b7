"""The machine's own clocks."""

from __future__ import annotations

import time


class SystemClock:
    """The Clock of model/clock.py for everything that really runs."""

    def now(self) -> float:
        return time.time()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
