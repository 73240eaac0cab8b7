"""`runyard serve` with a docker pool: a secret used in two containers and masked, through a kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_daemon import IMAGE, DockerDaemon, docker_daemon, why_missing
from tests.journeys.conftest import RunningService
from tests.journeys.test_secrets import VALUE, leaks, seen_in_proc, written_beneath

pytestmark = pytest.mark.service

OTHER = "runyard-test/other:1"
USING = 'echo "plain $TOKEN"; printf "%s" "$TOKEN" | base64 >&2; test "$(cat /run/secrets/key)" = "$TOKEN"'


@pytest.fixture
def dockerd() -> Iterator[DockerDaemon]:
    if why := why_missing():
        pytest.skip(why)
    with docker_daemon() as daemon:
        daemon.import_busybox()
        daemon.import_busybox(OTHER)
        yield daemon


@pytest.fixture
def service(tmp_path: Path, dockerd: DockerDaemon) -> Iterator[RunningService]:
    config = tmp_path / "runyard.toml"
    config.write_text(
        f'[pools.d]\nprovider = "docker"\nslots = 1\nhost = "{dockerd.address}"\nimage = "{IMAGE}"\n'
        f'local_images = ["{OTHER}"]\n'
    )
    running = RunningService(tmp_path / "data", environment={"RUNYARD_CONFIG": str(config)})
    running.start()
    try:
        yield running
    finally:
        running.close()


def test_a_secret_is_used_in_containers_and_shown_nowhere(
    service: RunningService, dockerd: DockerDaemon
) -> None:
    service.cli("secret", "set", "token", stdin=VALUE.encode() + b"\n")
    steps = [
        {"name": "first", "run": "until test -e go; do sleep 0.05; done; " + USING},
        {"name": "second", "run": USING + ' && echo "v=$TOKEN" > version', "image": OTHER},
    ]
    document = {
        "steps": steps,
        "secrets": ["token", {"name": "token", "file": "key"}],
        "outputs": {"version": "version"},
    }
    with service.client() as client:
        client.submit(document, id="using")
        for change in client.events(after="0"):
            if change.job == "using" and change.state == "running":
                break
    service.kill()
    names = dockerd.run("ps", "--format", "{{.Names}}").stdout.decode().split()
    running = (
        dockerd.run("inspect", *names).stdout + written_beneath(dockerd.folder / "data") + seen_in_proc()
    )
    assert leaks(running) == []
    service.start()
    first = next(name for name in names if name.endswith("-s0"))
    dockerd.run("exec", first, "/bin/touch", "/workspace/go")
    with service.client() as client:
        job = client.wait("using", timeout_s=60)
        assert (job.state, job.attempt_count) == ("succeeded", 1), job
        log = client.read_log("using")
    assert leaks(log) == []
    assert log.count(b"plain " + b"*" * len(VALUE)) == 2
    assert "*" in job.outputs["version"]
    assert leaks(str(dict(job.outputs)).encode() + written_beneath(service.data)) == []
    assert leaks(service.log.read_bytes()) == []
