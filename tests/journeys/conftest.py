"""A real service in a process of its own, on a free port, with a data folder of its own; and the real command line."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.sdk import Client

START_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 60.0


class RunningService:
    """`runyard serve` as a user starts it. Stopped by the pid it was started with, its jobs cancelled first."""

    def __init__(self, data: Path, *, environment: dict[str, str] | None = None, port: int = 0) -> None:
        self.data = data
        self.port = port
        self.environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data.parent / f"{data.name}.service.log"

    def start(self) -> RunningService:
        """Returns once it answers that it is ready."""
        (self.data / "address").unlink(missing_ok=True)
        environment = {**os.environ, **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "runyard",
                    "serve",
                    "--data",
                    str(self.data),
                    "--port",
                    str(self.port),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self.data / "address").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the service did not start:\n{self.log.read_text()[-3000:]}")
            self._wait_a_moment()
        return self

    def _wait_a_moment(self) -> None:
        """Until the service ends or 10 ms have passed."""
        assert self.process is not None
        with selectors.DefaultSelector() as selector:
            descriptor = os.pidfd_open(self.process.pid)
            try:
                selector.register(descriptor, selectors.EVENT_READ)
                selector.select(0.01)
            finally:
                os.close(descriptor)

    @property
    def url(self) -> str:
        return (self.data / "address").read_text().strip()

    @property
    def token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    def memory_bytes(self) -> int:
        """What the service's own process holds of memory now."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def client(self) -> Client:
        return Client(url=self.url, token=self.token)

    def cli(
        self, *arguments: str, check: int | None = 0, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs `runyard` with these arguments against this service; fails unless it exits with `check`."""
        done = subprocess.run(
            [sys.executable, "-m", "runyard", *arguments],
            input=stdin,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            env=self.client_environment(),
            check=False,
        )
        if check is not None and done.returncode != check:
            pytest.fail(
                f"runyard {' '.join(arguments)} ended with {done.returncode}, not {check}:\n"
                f"{done.stdout.decode(errors='replace')}\n{done.stderr.decode(errors='replace')}\n"
                f"--- service:\n{self.log.read_text()[-3000:]}"
            )
        return done

    def client_environment(self) -> dict[str, str]:
        return {**os.environ, "RUNYARD_URL": self.url, "RUNYARD_TOKEN": self.token}

    def kill(self) -> None:
        """kill -9, as a crash is."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """TERM, as an operator stops it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=START_TIMEOUT_S)
        assert status == 0, f"the service ended with {status}:\n{self.log.read_text()[-3000:]}"

    def close(self) -> None:
        """Cancels what is unfinished and stops; nothing is left running."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self.start()
        with self.client() as client:
            unfinished = [job for job in client.list(limit=1000) if not job.is_final]
            for job in unfinished:
                client.cancel(job.id, tenant=job.tenant)
            for job in unfinished:
                client.wait(job.id, tenant=job.tenant, timeout_s=COMMAND_TIMEOUT_S)
        self.stop()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    running = RunningService(tmp_path / "data")
    running.start()
    try:
        yield running
    finally:
        running.close()
