"""Two services on one PostgreSQL: either serves any call and any log; each pool has one owner; nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.sdk import Client
from tests.journeys.conftest import RunningService
from tests.postgres_server import shared_server

pytestmark = pytest.mark.service


@pytest.fixture
def services(tmp_path: Path) -> Iterator[tuple[RunningService, RunningService]]:
    """On one ledger and one folder of logs, each with a data folder and a pool of its own."""
    url = shared_server().new_database()
    running = []
    for name in ("one", "two"):
        config = tmp_path / f"{name}.toml"
        config.write_text(
            f'[ledger]\nurl = "{url}"\n[logs]\ndirectory = "{tmp_path}/logs"\n'
            f'[artifacts]\ndirectory = "{tmp_path}/artifacts"\n'
            f'[queues.{name}]\nweight = 1\n[pools.{name}]\nprovider = "local"\nqueues = ["{name}"]\nslots = 2\n'
        )
        running.append(RunningService(tmp_path / name, environment={"RUNYARD_CONFIG": str(config)}))
    first, second = running
    first.start()
    second.start()
    try:
        yield first, second
    finally:
        first.close()
        second.stop()


def other(first: RunningService, second: RunningService) -> Client:
    """The second service, with the token that the first one made: it is in the ledger."""
    return Client(url=second.url, token=first.token)


def test_either_service_takes_a_job_for_the_others_pool_and_serves_its_log(
    services: tuple[RunningService, RunningService],
) -> None:
    first, second = services
    with first.client() as here, other(first, second) as there:
        there.submit({"queue": "one", "steps": [{"run": "echo from one"}]}, id="a")
        here.submit({"queue": "two", "steps": [{"run": "echo from two"}]}, id="b")
        assert here.wait("a", timeout_s=30).state == "succeeded"
        assert there.wait("b", timeout_s=30).state == "succeeded"
        assert here.read_log("b") == b"from two\n"
        assert there.read_log("a") == b"from one\n"


def test_a_killed_services_jobs_go_on_and_the_other_still_answers_for_them(
    services: tuple[RunningService, RunningService],
) -> None:
    first, second = services
    with other(first, second) as there:
        there.submit({"queue": "one", "steps": [{"run": "echo begins; sleep 2; echo ends"}]}, id="long")
        for change in there.events(after="0"):
            if change.job == "long" and change.state == "running":
                break
        first.kill()
        assert there.get("long").state == "running"
        first.start()
        job = there.wait("long", timeout_s=30)
        assert (job.state, job.attempt_count) == ("succeeded", 1)
        assert there.read_log("long") == b"begins\nends\n"


def test_a_second_data_folder_may_not_take_a_hosts_pool(
    services: tuple[RunningService, RunningService], tmp_path: Path
) -> None:
    first, _ = services
    config = tmp_path / "one.toml"
    done = first.cli(
        "serve", "--config", str(config), "--data", str(tmp_path / "third"), "--port", "0", check=1
    )
    assert b"belongs to another data folder" in done.stderr
