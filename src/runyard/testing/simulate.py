"""`runyard simulate`, and the same as `python -m runyard.testing.simulate`: plays histories; the first one that breaks
a promise is told and can be replayed by its seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from runyard.testing.simulation.run import NO_PLANT, Result, simulate
from runyard.testing.simulation.service import Plant


def replay_command(seed: int) -> str:
    return f"runyard simulate --seed {seed} --trace"


def explain(result: Result) -> str:
    """A broken promise, with the command that plays it again."""
    return f"seed {result.seed}: {result.violation}\nreplay: {replay_command(result.seed)}"


def play(
    first: int,
    count: int,
    *,
    has_trace: bool = False,
    keeps_going: bool = False,
    is_json: bool = False,
    plant: Plant = NO_PLANT,
) -> int:
    """Plays `count` seeds from `first` on, and prints. `is_json`: a line for each history, instead of words for those
    that broke and a summary. Returns 1 when a history broke a promise, else 0."""
    broken, played, began, digest = 0, 0, time.perf_counter(), ""
    for seed in range(first, first + count):
        result = simulate(seed, plant)
        played, digest = played + 1, result.digest
        broken += result.violation is not None
        if is_json:
            _say(json.dumps(_row(result, has_trace=has_trace)))
        else:
            _say(*(result.trace if has_trace else ()))
            _say(*([explain(result)] if result.violation is not None else ()))
        if broken and not keeps_going:
            break
    if not is_json:
        rate = played / (time.perf_counter() - began)
        _say(f"{played} histories, {broken} broken, {rate:.0f} a second; the last: {digest[:16]}")
    return 1 if broken else 0


def _row(result: Result, *, has_trace: bool) -> dict[str, object]:
    row: dict[str, object] = {
        "seed": result.seed,
        "violation": result.violation,
        "digest": result.digest,
        "commits": result.commits,
        "lasted_s": result.lasted_s,
        "replay": replay_command(result.seed),
    }
    return row | ({"trace": result.trace} if has_trace else {})


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 when a history broke a promise."""
    parser = argparse.ArgumentParser(prog="simulate", description="Play seeded histories of faults.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on")
    parser.add_argument("--trace", action="store_true", help="print what happened, line by line")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first broken promise")
    parser.add_argument("--json", action="store_true", help="one JSON document per history")
    asked = parser.parse_args(argv)
    return play(
        asked.seed, asked.count, has_trace=asked.trace, keeps_going=asked.keep_going, is_json=asked.json
    )


if __name__ == "__main__":
    sys.exit(main())
