"""`python -m runyard.testing.simulate`: plays histories; the first one that breaks a promise is told and can be
replayed by its seed. `runyard simulate` calls `main`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from runyard.testing.simulation.run import Result, simulate


def replay_command(seed: int) -> str:
    return f"python -m runyard.testing.simulate --seed {seed} --trace"


def explain(result: Result) -> str:
    """A broken promise, with the command that plays it again."""
    return f"seed {result.seed}: {result.violation}\nreplay: {replay_command(result.seed)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 when a history broke a promise."""
    parser = argparse.ArgumentParser(prog="simulate", description="Play seeded histories of faults.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on")
    parser.add_argument("--trace", action="store_true", help="print what happened, line by line")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first broken promise")
    arguments = parser.parse_args(argv)
    broken, began = 0, time.perf_counter()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        result = simulate(seed)
        if arguments.trace:
            _say(*result.trace)
        if result.violation is not None:
            broken += 1
            _say(explain(result))
            if not arguments.keep_going:
                break
    took_s = time.perf_counter() - began
    played = seed - arguments.seed + 1
    _say(
        f"{played} histories, {broken} broken, {played / took_s:.0f} a second; the last: {result.digest[:16]}"
    )
    return 1 if broken else 0


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
