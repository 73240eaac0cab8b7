"""`runyard simulate`: the production dispatcher through seeded histories of faults, on this machine alone."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

Seed: TypeAlias = Annotated[int, Parameter(validator=Number(gte=0))]
Count: TypeAlias = Annotated[int, Parameter(validator=Number(gte=1))]


def simulate(
    *, seed: Seed = 0, count: Count = 1, trace: bool = False, keep_going: bool = False, json: bool = False
) -> int:
    """Play histories of crashes, pauses, lost replies and jumping clocks, and check every promise after every commit.

    No service, no sandbox and no waiting: time is virtual. The same seed is the same history. The first one that
    breaks a promise is told, with the command that replays it; the exit code is then 1.

    Parameters
    ----------
    seed
        The first history.
    count
        How many histories, from that one on.
    trace
        Print what happened, line by line.
    keep_going
        Do not end at the first broken promise.
    json
        One JSON document per history instead of words.
    """
    from runyard.testing.simulate import play

    return play(seed, count, has_trace=trace, keeps_going=keep_going, is_json=json)
