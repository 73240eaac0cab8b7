"""`runyard simulate`: what it prints, and its exit code."""

from __future__ import annotations

import json

import pytest

from runyard.cli import run_command
from runyard.testing.simulate import play
from tests.simulation.planted import PLANTED


def test_histories_that_keep_every_promise_end_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["simulate", "--seed", "3", "--count", "2", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["seed"], row["violation"]) for row in rows] == [(3, None), (4, None)]


def test_a_broken_promise_ends_with_one_and_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant, _ = PLANTED["charge not corrected"]
    assert play(0, 20, plant=plant) == 1
    said = capsys.readouterr().out
    [replay] = [line for line in said.splitlines() if line.startswith("replay: ")]
    seed = int(replay.removeprefix("replay: runyard simulate --seed ").removesuffix(" --trace"))
    assert f"seed {seed}: " in said


def test_it_goes_on_to_the_last_seed_where_that_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    plant, _ = PLANTED["charge not corrected"]
    assert play(0, 6, keeps_going=True, is_json=True, plant=plant) == 1
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_no_histories_at_all_are_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["simulate", "--count", "0"]) == 2
    assert "--count" in capsys.readouterr().err
