"""Seeded histories of faults over the production dispatcher: every promise holds at every commit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runyard.testing.simulate import explain
from runyard.testing.simulation.run import simulate

pytestmark = pytest.mark.simulation

PARTS, PART = 6, 50
LONG_PARTS, LONG_PART = 20, 250


def play(first: int, count: int) -> None:
    for seed in range(first, first + count):
        result = simulate(seed)
        assert result.violation is None, explain(result)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_in_fifty_histories(part: int) -> None:
    play(part * PART, PART)


@pytest.mark.long
@pytest.mark.parametrize("part", range(LONG_PARTS))
def test_every_promise_holds_in_thousands_of_histories(part: int, seed: int) -> None:
    play(1_000_000 + seed % 1_000_000 * 1000 + part * LONG_PART, LONG_PART)


@pytest.mark.parametrize("number", [0, 19, 155, 190])
def test_the_same_seed_is_the_same_history(number: int) -> None:
    assert simulate(number).trace == simulate(number).trace


def test_the_same_seed_is_the_same_history_in_another_process_with_another_hash_seed() -> None:
    program = (
        "from runyard.testing.simulation.run import simulate as s; print([s(n).digest for n in range(8)])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "77")
    }
    assert told == {f"{[simulate(number).digest for number in range(8)]}\n"}


def test_a_broken_promise_tells_the_command_that_replays_it() -> None:
    from tests.simulation.planted import PLANTED

    plant, _ = PLANTED["charge not corrected"]
    broken = next(result for result in (simulate(seed, plant) for seed in range(20)) if result.violation)
    assert f"runyard simulate --seed {broken.seed} --trace" in explain(broken)
