"""Time as a thing that is handed in, so that tests and the simulator own it."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC. May jump when an operator or NTP sets it."""
        ...

    def boottime(self) -> float:
        """Seconds that only grow, sleep of the machine included (CLOCK_BOOTTIME): for leases and time-outs."""
        ...
