"""`runyard serve` with a Kubernetes pool: a job over two images from a repository, live, and through a kill -9."""

from __future__ import annotations

import functools
import http.server
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.conftest import RunningService
from tests.providers.kubernetes.real_cluster import IMAGE, KUBECONFIG, WHY_NOT

HOST = os.environ.get("RUNYARD_TEST_KUBE_HOST", "")
STEP_IMAGE = os.environ.get("RUNYARD_TEST_KUBE_IMAGE", IMAGE)
WHY_NOT_HERE = WHY_NOT or ("" if HOST else "RUNYARD_TEST_KUBE_HOST names no address of ours that pods reach")
LINES = 30
SLOW = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.1; done"
WHOLE = b"".join(b"line %d\n" % number for number in range(1, LINES + 1))
SMALL = {"cpu": "50m", "memory": "64Mi"}

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(WHY_NOT_HERE), reason=WHY_NOT_HERE),
]


def kubectl(*arguments: str) -> str:
    return subprocess.run(
        ["kubectl", "--kubeconfig", KUBECONFIG, *arguments], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"runyard-journey-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def service(tmp_path: Path, namespace: str) -> Iterator[RunningService]:
    config = tmp_path / "runyard.toml"
    config.write_text(
        "[pools.k]\n"
        'provider = "kubernetes"\n'
        f'kubeconfig = "{KUBECONFIG}"\n'
        f'namespace = "{namespace}"\n'
        f'image = "{IMAGE}"\n'
        'image_pull_policy = "IfNotPresent"\n'
        'git_protocols = ["http"]\n'
        "allow_private_addresses = true\n"
    )
    running = RunningService(tmp_path / "data", environment={"RUNYARD_CONFIG": str(config)})
    running.start()
    yield running
    running.close()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "repository"
    git = functools.partial(subprocess.run, check=True, cwd=folder, capture_output=True)
    folder.mkdir()
    git(["git", "init", "-q", "-b", "main"])
    (folder / "greeting").write_text("from the repository\n")
    git(["git", "add", "."])
    git(["git", "-c", "user.name=a", "-c", "user.email=a@example.test", "commit", "-qm", "one"])
    git(["git", "update-server-info"])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder / ".git"))
    server = http.server.ThreadingHTTPServer((HOST, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{HOST}:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_job_from_a_repository_runs_over_two_images_and_its_artifacts_come_home(
    service: RunningService, namespace: str, repository: str
) -> None:
    document = {
        "workspace": {"git": {"url": repository, "ref": "main"}},
        "steps": [
            {"name": "read", "run": "cat greeting; echo built > result.txt"},
            {
                "name": "look",
                "image": STEP_IMAGE,
                "run": "cat result.txt; echo done > $RUNYARD_OUTPUTS/state",
            },
        ],
        "requirements": SMALL,
        "artifacts": ["result.txt"],
    }
    with service.client() as client:
        job = client.wait(client.submit(document, id="two-images").id, timeout_s=120)
        assert job.state == "succeeded", (job, service.log.read_text()[-3000:])
        assert client.read_log("two-images") == b"from the repository\nbuilt\n"
    got = service.data.parent / "got"
    service.cli("artifacts", "two-images", "--get", str(got))
    assert (got / "result.txt").read_text() == "built\n"


def test_a_kill_of_the_service_in_the_middle_loses_no_line_and_runs_nothing_twice(
    service: RunningService, namespace: str
) -> None:
    document = {"steps": [{"run": SLOW}, {"run": "echo second"}], "requirements": SMALL}
    with service.client() as client:
        ids = [client.submit(document, id=f"slow-{number}").id for number in range(3)]
        waiting = set(ids)
        for change in client.events(after="0"):
            if change.state == "running":
                waiting.discard(change.job)
            if not waiting:
                break
    service.kill()
    service.start()
    with service.client() as client:
        for job_id in ids:
            job = client.wait(job_id, timeout_s=120)
            assert (job.state, job.attempt_count) == ("succeeded", 1), job
            assert client.read_log(job_id) == WHOLE + b"second\n"


def test_a_canceled_job_is_told_as_canceled(service: RunningService, namespace: str) -> None:
    with service.client() as client:
        job = client.submit({"steps": [{"run": "echo here; sleep 600"}], "requirements": SMALL}, id="long")
        for change in client.events(after="0"):
            if change.job == job.id and change.state == "running":
                break
        client.cancel(job.id)
        assert client.wait(job.id, timeout_s=60).state == "canceled"


def test_a_check_of_the_pool_runs_a_job_and_finds_all_well(service: RunningService, namespace: str) -> None:
    said = service.cli("pool", "check", "k").stdout.decode()
    assert "its log and artifact came through" in said
