"""A full disk, a folder that cannot be written, a port that is taken: a clear error, and nothing lost."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.sdk import Client
from runyard.sdk.errors import RunyardApiError
from runyard.sdk.retrying import RetryPolicy
from tests.journeys.conftest import RunningService

pytestmark = pytest.mark.service

IMPATIENT = RetryPolicy(tries_max=1, wait_s_max=1.0, delay_s_first=0.1, delay_s_max=0.1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=711", "runyard-test", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing_of_what_it_took(
    small_disk: Path, tmp_path: Path
) -> None:
    config = tmp_path / "runyard.toml"
    config.write_text('[pools.local]\nprovider = "local"\ndisk_reserve = 0\n')
    service = RunningService(small_disk / "data", environment={"RUNYARD_CONFIG": str(config)})
    service.log = tmp_path / "service.log"
    service.start()
    try:
        with service.client() as client:
            client.pools.pause("local")
            taken = [client.submit({"steps": [{"run": "true"}]}, id="before").id]
            ballast = small_disk / "ballast"
            fill(ballast)
            with Client(url=service.url, token=service.token, policy=IMPATIENT) as impatient:
                refusal = submit_until_refused(impatient, taken)
            assert "disk" in str(refusal).lower() or "full" in str(refusal).lower()
            ballast.unlink()
            taken.append(client.submit({"steps": [{"run": "true"}]}, id="after").id)
            client.pools.resume("local")
            for job_id in taken:
                assert client.wait(job_id, timeout_s=60).state == "succeeded"
    finally:
        service.close()


def fill(ballast: Path) -> None:
    """Takes all the room there is."""
    with ballast.open("wb", buffering=0) as file:
        size = 1 << 20
        while size >= 4096:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2


def submit_until_refused(client: Client, taken: list[str]) -> RunyardApiError:
    """What was answered goes into `taken`; returns the refusal."""
    for number in range(2_000):
        try:
            taken.append(
                client.submit({"steps": [{"run": "true"}], "env": {"A": "x" * 4000}}, id=f"full-{number}").id
            )
        except RunyardApiError as error:
            return error
    pytest.fail("a full disk refused nothing")


def test_a_data_folder_that_cannot_be_written_is_named_with_the_cure(tmp_path: Path) -> None:
    folder = tmp_path / "readonly"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "runyard-test", str(folder)], check=True)
    try:
        done = serve(folder / "data")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert done.returncode == 1
    assert str(folder / "data") in done.stderr
    assert "cure:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named_with_the_cure(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve(tmp_path / "data", "--port", str(port))
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr


def test_a_wrong_configuration_lists_every_problem_and_starts_nothing(tmp_path: Path) -> None:
    config = tmp_path / "runyard.toml"
    config.write_text('[server]\ncolour = "red"\n[pools.x]\nprovider = "cloud"\nslots = 0\n')
    done = serve(tmp_path / "data", "--config", str(config))
    assert done.returncode == 1
    assert "server.colour" in done.stderr
    assert "pools.x.slots" in done.stderr


def test_an_unknown_provider_names_those_there_are(tmp_path: Path) -> None:
    config = tmp_path / "runyard.toml"
    config.write_text('[pools.x]\nprovider = "cloud"\n')
    done = serve(tmp_path / "data", "--config", str(config), "--port", "0")
    assert done.returncode == 1
    assert "'cloud'" in done.stderr
    assert "local" in done.stderr


def serve(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    import sys

    return subprocess.run(
        [sys.executable, "-m", "runyard", "serve", "--data", str(data), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ},
        check=False,
    )
