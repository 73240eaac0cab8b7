"""Two services on one PostgreSQL: either serves any call and any log; each pool has one owner; nothing is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.sdk import Client, LogChunk
from tests.journeys.conftest import RunningService
from tests.postgres_server import shared_server
from tests.s3_server import S3Server, running_s3

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture
def services_apart(tmp_path: Path, s3: S3Server) -> Iterator[tuple[RunningService, RunningService]]:
    """On one ledger and one bucket, with no folder in common."""
    options = "".join(f'{name} = "{value}"\n' for name, value in s3.options.items())
    stores = (
        f'[logs]\nurl = "{s3.make_bucket()}/logs"\n[artifacts]\nurl = "{s3.make_bucket()}/artifacts"\n'
        f"[object_store]\nallow_http = true\n[object_store.options]\n{options}"
    )
    with two_services(tmp_path, stores) as pair:
        yield pair


@pytest.fixture
def services(tmp_path: Path) -> Iterator[tuple[RunningService, RunningService]]:
    """On one ledger and one folder of logs, each with a data folder and a pool of its own."""
    stores = f'[logs]\ndirectory = "{tmp_path}/logs"\n[artifacts]\ndirectory = "{tmp_path}/artifacts"\n'
    with two_services(tmp_path, stores) as pair:
        yield pair


@contextlib.contextmanager
def two_services(tmp_path: Path, stores: str) -> Iterator[tuple[RunningService, RunningService]]:
    url = shared_server().new_database()
    running = []
    for name in ("one", "two"):
        config = tmp_path / f"{name}.toml"
        config.write_text(
            f'[ledger]\nurl = "{url}"\n{stores}'
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


def printed(items: Iterator[object]) -> Iterator[bytes]:
    return (each.data for each in items if isinstance(each, LogChunk))


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


def test_services_without_a_common_folder_serve_each_others_logs_while_they_grow_and_artifacts(
    services_apart: tuple[RunningService, RunningService],
) -> None:
    first, second = services_apart
    script = "echo begins; while [ ! -e go ]; do sleep 0.1; done; echo ends; echo result > result.txt"
    with first.client() as here, other(first, second) as there:
        here.submit({"queue": "one", "steps": [{"run": script}], "artifacts": ["result.txt"]}, id="live")
        lines = there.follow_log("live")
        assert next(printed(lines)) == b"begins\n"
        workspace = next((first.data / "pools" / "one" / "attempts").glob("*/workspace"))
        (workspace / "go").touch()
        assert there.wait("live", timeout_s=30).state == "succeeded"
        assert b"".join(printed(lines)) == b"ends\n"
        assert [each.path for each in there.artifacts("live")] == ["result.txt"]
        assert here.read_log("live") == there.read_log("live") == b"begins\nends\n"
        here.submit({"queue": "one", "steps": [{"run": "true"}]}, id="mute")
        assert list(printed(there.follow_log("mute"))) == []
        assert there.get("mute").state == "succeeded"


def test_a_killed_service_ships_after_its_restart_what_its_jobs_printed_meanwhile(
    services_apart: tuple[RunningService, RunningService],
) -> None:
    first, second = services_apart
    with other(first, second) as there:
        there.submit({"queue": "one", "steps": [{"run": "echo begins; sleep 1; echo ends"}]}, id="long")
        for change in there.events(after="0"):
            if change.job == "long" and change.state == "running":
                break
        first.kill()
        first.start()
        assert there.wait("long", timeout_s=30).state == "succeeded"
        lines = there.follow_log("long")
        assert b"".join(printed(lines)) == b"begins\nends\n"
