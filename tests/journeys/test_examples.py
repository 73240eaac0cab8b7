"""Every example of examples/ is run, as it stands."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.conftest import RunningService

pytestmark = pytest.mark.service

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    """Allowed to clone over plain HTTP from this host, as an operator with a git server inside would set it."""
    config = tmp_path / "runyard.toml"
    config.write_text(
        '[pools.local]\nprovider = "local"\ngit_protocols = ["https", "ssh", "http"]\nallow_private_addresses = true\n'
    )
    running = RunningService(tmp_path / "data", environment={"RUNYARD_CONFIG": str(config)})
    running.start()
    try:
        yield running
    finally:
        running.close()


def finished(service: RunningService, file: Path) -> dict[str, object]:
    job_id = service.cli("submit", "--wait", str(file)).stdout.decode().strip()
    job = json.loads(service.cli("job", job_id, "--json").stdout)
    assert job["state"] == "succeeded", job
    return {**job, "log": service.cli("logs", job_id).stdout.decode()}


def test_hello(service: RunningService) -> None:
    job = finished(service, EXAMPLES / "hello.yaml")
    assert job["log"] == f"hello from {job['id']}, attempt 1\n"


def test_steps(service: RunningService, tmp_path: Path) -> None:
    job = finished(service, EXAMPLES / "steps.yaml")
    assert "greeting.txt" in str(job["log"])
    service.cli("artifacts", str(job["id"]), "--get", str(tmp_path / "got"))
    assert (tmp_path / "got" / "greeting.txt").read_text() == "hello\n"


def test_files(service: RunningService) -> None:
    assert finished(service, EXAMPLES / "files.yaml")["outputs"] == {"LINES": "3\n"}


def git(*arguments: str, at: Path) -> None:
    identity = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com"}
    committer = {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.com"}
    environment = {**os.environ, **identity, **committer, "HOME": str(at)}
    subprocess.run(["git", *arguments], cwd=at, check=True, capture_output=True, env=environment)


@pytest.fixture
def repository_url(tmp_path: Path) -> Iterator[str]:
    """A repository with history and a test suite, served over HTTP on a free port."""
    work = tmp_path / "project"
    work.mkdir()
    git("init", "--quiet", "--initial-branch", "main", at=work)
    (work / "adder.py").write_text("def add(a: int, b: int) -> int:\n    return a + b\n")
    git("add", ".", at=work)
    git("commit", "--quiet", "-m", "Add what adds", at=work)
    (work / "test_adder.py").write_text(
        "import unittest\nfrom adder import add\n\n\nclass Adds(unittest.TestCase):\n"
        "    def test_two_and_two(self) -> None:\n        self.assertEqual(add(2, 2), 4)\n"
    )
    git("add", ".", at=work)
    git("commit", "--quiet", "-m", "Test what adds", at=work)
    bare = tmp_path / "served" / "project.git"
    git("clone", "--quiet", "--bare", str(work), str(bare), at=tmp_path)
    git("update-server-info", at=bare)
    handler = type("Handler", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    folder = str(bare.parent)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: handler(*arguments, directory=folder)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/project.git"
    server.shutdown()
    server.server_close()


def test_a_repository_is_cloned_tested_and_its_report_kept(
    service: RunningService, repository_url: str, tmp_path: Path
) -> None:
    text = (EXAMPLES / "test-a-repository.yaml").read_text()
    address = "https://git.example.com/team/project.git"
    assert address in text
    file = tmp_path / "job.yaml"
    file.write_text(
        text.replace(address, repository_url).replace(", depth: 1", "")
    )  # plain HTTP serves no depth
    job = finished(service, file)
    service.cli("artifacts", str(job["id"]), "--get", str(tmp_path / "got"))
    assert "OK" in (tmp_path / "got" / "report.txt").read_text()
    assert "Test what adds" in (tmp_path / "got" / "history.txt").read_text()
