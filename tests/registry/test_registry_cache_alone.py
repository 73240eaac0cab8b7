"""`runyard registry-cache` and `runyard serve` with a cache, as processes, over a real registry."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from tests.registry.upstream import Upstream, free_port, pack_image, skopeo

pytestmark = pytest.mark.service


@pytest.fixture
def upstream(tmp_path: Path):
    real = Upstream(tmp_path / "upstream")
    real.start()
    real.push(pack_image(tmp_path / "image.tar"), "library/app:1")
    yield real
    real.stop()


@pytest.fixture
def run(tmp_path: Path, upstream: Upstream):
    """Starts a command of runyard with a cache at a port, killed by its pid at the end."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(port: int, *command: str) -> subprocess.Popen[bytes]:
        config = tmp_path / "runyard.toml"
        config.write_text(
            f"""
            data = "{tmp_path / "data"}"
            [registry_cache]
            listen = "127.0.0.1:{port}"
            [registry_cache.upstreams.up]
            url = "http://{upstream.host}"
            """
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNYARD_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "runyard", *command, "--config", str(config)], env=environment
        )
        processes.append(process)
        await_answer(port, process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def await_answer(port: int, process: subprocess.Popen[bytes]) -> None:
    ends_at = time.monotonic() + 30
    while True:
        try:
            httpx2.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
            return
        except httpx2.TransportError:
            assert process.poll() is None
            assert time.monotonic() < ends_at
            time.sleep(0.02)


def pull(port: int, folder: Path) -> None:
    skopeo("copy", "--src-tls-verify=false", f"docker://127.0.0.1:{port}/up/library/app:1", f"dir:{folder}")


def test_alone_it_serves_counts_and_survives_a_kill_with_the_registry_down(tmp_path, upstream, run) -> None:
    port = free_port()
    process = run(port, "registry-cache")
    pull(port, tmp_path / "first")
    metrics = httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert 'runyard_registry_cache_answers_total{how="misses"} 4.0' in metrics
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    upstream.stop()

    process = run(port, "registry-cache")
    pull(port, tmp_path / "second")
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0


def test_the_service_serves_the_cache_beside_its_api(tmp_path, run) -> None:
    port = free_port()
    process = run(port, "serve", "--port", "0")
    pull(port, tmp_path / "pulled")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
