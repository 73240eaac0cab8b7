"""What a newcomer does first, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.journeys.conftest import RunningService

pytestmark = pytest.mark.service


def test_run_shows_the_jobs_own_output_and_passes_its_exit_code_on(service: RunningService) -> None:
    done = service.cli("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=7)
    assert done.stdout == b"out\n"
    assert b"err\n" in done.stderr


def test_output_is_binary_safe_and_told_apart(service: RunningService) -> None:
    done = service.cli("run", "--", "sh", "-c", r"printf '\000\377\001'; printf '\376' >&2")
    assert done.stdout == b"\x00\xff\x01"
    assert b"\xfe" in done.stderr


def test_a_signal_becomes_128_plus_its_number(service: RunningService) -> None:
    service.cli("run", "--", "sh", "-c", "kill -TERM $$", check=128 + 15)


def test_a_job_that_runs_out_of_time_ends_with_124(service: RunningService) -> None:
    service.cli("run", "--timeout", "1s", "--", "sleep", "60", check=124)


def test_a_command_that_is_not_there_is_named(service: RunningService) -> None:
    done = service.cli("run", "--", "no-such-command", check=127)
    assert b"no-such-command" in done.stderr


def test_a_job_is_isolated(service: RunningService) -> None:
    script = (
        "id -u; ls /home /root /var 2>&1 | head -3; ls / | tr '\\n' ' '; cat /proc/self/status | grep CapEff"
    )
    out = service.cli("run", "--", "sh", "-c", script).stdout.decode()
    assert out.startswith("1000\n")
    assert "CapEff:\t0000000000000000" in out


def test_a_job_file_with_steps_outputs_and_artifacts(service: RunningService, tmp_path: Path) -> None:
    document = {
        "id": "whole",
        "steps": [
            {"name": "one", "run": "echo 1 > a.txt; mkdir -p d; echo 2 > d/b.txt"},
            {"name": "two", "run": "cat a.txt d/b.txt; exit 3"},
            {"name": "skipped", "run": "echo never"},
            {"name": "cleanup", "run": "echo bye > bye.txt", "if": "always"},
        ],
        "artifacts": ["*.txt", "d/**"],
        "outputs": {"A": "a.txt"},
    }
    file = tmp_path / "job.json"
    file.write_text(json.dumps(document))
    assert service.cli("submit", "--wait", str(file), check=1).stdout == b"whole\n"
    assert service.cli("logs", "whole", "--step", "two").stdout == b"1\n2\n"
    job = json.loads(service.cli("job", "whole", "--json").stdout)
    assert (job["state"], job["exit_code"]) == ("failed", 3)
    assert job["reason"]["step"] == "two"
    assert job["outputs"] == {"A": "1\n"} or job["outputs"] == {"A": "1"}
    service.cli("artifacts", "whole", "--get", str(tmp_path / "got"))
    got = {
        str(path.relative_to(tmp_path / "got")) for path in (tmp_path / "got").rglob("*") if path.is_file()
    }
    assert got == {"a.txt", "d/b.txt", "bye.txt"}


def test_the_service_says_what_it_is_by_listing_its_pool(service: RunningService) -> None:
    (pool,) = json.loads(service.cli("pools", "--json").stdout)
    assert (pool["name"], pool["isolation"], pool["health"]) == ("local", "container", "healthy")
