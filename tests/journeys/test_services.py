"""A job with a real PostgreSQL beside it, through the real command line, service and registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.world import living_with
from tests.journeys.conftest import RunningService
from tests.postgres_image import CONFIG, postgres_entries
from tests.registry_server import Registry, serving_registry

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    entries = postgres_entries()
    if entries is None:
        pytest.skip("PostgreSQL's server is not installed here: apt-get install postgresql")
    with serving_registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.push("db/postgres:1", entries, config=CONFIG)
        yield registry


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service")
    data = folder / "data"
    data.mkdir()
    (folder / "runyard.toml").write_text(
        '[pools.local]\nprovider = "local"\n\n'
        f'[[pools.local.registries]]\nhost = "{registry.address}"\nprivate = true\n'
    )
    running = RunningService(data, environment={"RUNYARD_CONFIG": str(folder / "runyard.toml")})
    running.start()
    try:
        yield running
    finally:
        running.close()


def test_a_job_works_with_its_database_over_a_restart_of_runyard(
    service: RunningService, registry: Registry
) -> None:
    image = f"{registry.address}/db/postgres:1"
    ask = 'psql -h db -U postgres -Atc "$1"'
    document = {
        "image": image,
        "requirements": {"memory": "512Mi"},
        "services": {
            "db": {"image": image, "ready": {"command": ["pg_isready", "-h", "127.0.1.1"]}, "memory": "256Mi"}
        },
        "steps": [
            {"name": "write", "command": ["sh", "-c", ask, "-", "create table t as select 6 * 7 as answer"]},
            {"name": "go on", "run": "echo waits; n=0; while [ $n -lt 20 ]; do n=$((n+1)); sleep 0.1; done"},
            {"name": "read", "command": ["sh", "-c", ask, "-", "select answer from t"]},
        ],
    }
    with service.client() as client:
        client.submit(document, id="with-db")
        for change in client.events(after="0"):
            if change.state == "running":
                break
    service.kill()
    service.start()
    with service.client() as client:
        job = client.wait("with-db", timeout_s=120)
        assert job.state == "succeeded", (
            job.reason,
            client.read_log("with-db", step="service:db", stream="stderr"),
        )
        assert job.attempt_count == 1
        assert client.read_log("with-db", step="read") == b"42\n"
        assert "services" in job.attempts[0].phases
        assert "service:db" in job.attempts[0].placement
    assert b"ready to accept connections" in service.cli("logs", "with-db", "--step", "service:db").stderr
    assert b"ready to accept" not in service.cli("logs", "with-db").stderr
    assert not living_with("listen_addresses=*")


def test_a_database_that_dies_is_the_reason(
    service: RunningService, registry: Registry, tmp_path: Path
) -> None:
    image = f"{registry.address}/db/postgres:1"
    document = {
        "id": "dies",
        "requirements": {"memory": "512Mi"},
        "services": {"db": {"image": image, "env": {"PATH": "/nowhere"}}},
        "steps": [{"run": "sleep 60"}],
    }
    (tmp_path / "job.json").write_text(json.dumps(document))
    done = service.cli("submit", str(tmp_path / "job.json"), "--wait", check=None)
    assert done.returncode != 0
    reason = json.loads(service.cli("job", "dies", "--json").stdout)["reason"]
    assert reason["code"] == "service"
    assert "service 'db' ended with exit code" in reason["message"]
