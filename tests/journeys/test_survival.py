"""kill -9 loses no job and no log line; nothing runs twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runyard.sdk import Client
from tests.journeys.conftest import RunningService

pytestmark = pytest.mark.service

JOBS = 8
LINES = 30
SCRIPT = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.1; done"
WHOLE = b"".join(b"line %d\n" % number for number in range(1, LINES + 1))


@pytest.fixture
def service(tmp_path: Path) -> RunningService:
    """With a slot for each of the jobs."""
    config = tmp_path / "runyard.toml"
    config.write_text('[pools.local]\nprovider = "local"\nslots = 8\n')
    running = RunningService(tmp_path / "data", environment={"RUNYARD_CONFIG": str(config)})
    running.start()
    yield running  # type: ignore[misc]
    running.close()


def submit_slow_jobs(client: Client, round_: int) -> list[str]:
    document = {"steps": [{"run": SCRIPT}], "requirements": {"cpu": "100m", "memory": "64Mi"}}
    return [client.submit(document, id=f"slow-{round_}-{number}").id for number in range(JOBS)]


def wait_until_all_run(client: Client, ids: list[str]) -> None:
    waiting = set(ids)
    for change in client.events(after="0"):
        if change.state == "running":
            waiting.discard(change.job)
        if not waiting:
            return


def survive_a_kill(service: RunningService, round_: int) -> None:
    with service.client() as client:
        ids = submit_slow_jobs(client, round_)
        wait_until_all_run(client, ids)
    service.kill()
    service.start()
    with service.client() as client:
        for job_id in ids:
            job = client.wait(job_id, timeout_s=60)
            assert job.state == "succeeded", job
            assert job.attempt_count == 1, "it was run twice"
            assert client.read_log(job_id) == WHOLE


def test_killed_while_eight_jobs_run_all_are_adopted(service: RunningService) -> None:
    for round_ in range(2):
        survive_a_kill(service, round_)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_a_hundred_times_in_a_row(service: RunningService) -> None:
    for round_ in range(100):
        survive_a_kill(service, round_)


def test_a_job_of_three_steps_ends_though_the_service_is_dead_during_the_first(
    service: RunningService,
) -> None:
    fifo_step = "echo first; sleep 1; echo first ends"
    document = {
        "steps": [
            {"name": "one", "run": fifo_step},
            {"name": "two", "run": "echo two"},
            {"name": "three", "run": "echo 3"},
        ]
    }
    with service.client() as client:
        client.submit(document, id="three")
        wait_until_all_run(client, ["three"])
    service.kill()
    service.start()
    with service.client() as client:
        assert client.wait("three", timeout_s=30).state == "succeeded"
        assert client.read_log("three", step="three") == b"3\n"


def test_a_stopped_service_leaves_its_jobs_running(service: RunningService) -> None:
    with service.client() as client:
        ids = submit_slow_jobs(client, 0)
        wait_until_all_run(client, ids)
    service.stop()
    service.start()
    with service.client() as client:
        assert {client.wait(job_id, timeout_s=60).attempt_count for job_id in ids} == {1}


def test_a_drained_service_lets_what_runs_end_takes_nothing_new_and_stops(service: RunningService) -> None:
    assert service.process is not None
    with service.client() as client:
        client.submit({"steps": [{"run": "sleep 1; echo whole"}]}, id="last")
        wait_until_all_run(client, ["last"])
        service.process.send_signal(signal.SIGUSR1)
        assert service.process.wait(timeout=30) == 0
    service.start()
    with service.client() as client:
        job = client.get("last")
        assert (job.state, job.attempt_count) == ("succeeded", 1)


def test_a_second_service_on_the_same_folder_is_refused_and_named(service: RunningService) -> None:
    assert service.process is not None
    done = service.cli("serve", "--data", str(service.data), "--port", "0", check=1)
    assert str(service.process.pid).encode() in done.stderr


def test_a_submit_that_was_answered_survives_the_crash_that_follows(service: RunningService) -> None:
    with service.client() as client:
        client.submit({"steps": [{"run": "true"}]}, id="acknowledged")
    service.kill()
    service.start()
    with service.client() as client:
        assert client.wait("acknowledged", timeout_s=30).state == "succeeded"


def test_nothing_of_finished_jobs_is_left_on_the_host(service: RunningService) -> None:
    with service.client() as client:
        ids = [client.submit({"steps": [{"run": "true"}]}).id for _ in range(5)]
        for job_id in ids:
            client.wait(job_id, timeout_s=30)
    service.stop()
    left = [path.name for path in (service.data / "pools" / "local").rglob("runyard-*")]
    assert left == []
    service.start()
    assert not [name for name in os.listdir("/proc") if name.isdecimal() and _is_of(service, name)]


def _is_of(service: RunningService, pid: str) -> bool:
    """Whether a process is a sandbox of this service's jobs."""
    try:
        command = Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False
    return b"bwrap" in command and str(service.data).encode() in command
