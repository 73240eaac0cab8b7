"""A real S3 server (moto's) on a free port of this host, one for a test session, stopped by its own pid."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

START_S = 30.0


@dataclass(frozen=True, slots=True)
class S3Server:
    address: str
    process: subprocess.Popen[bytes]

    @property
    def options(self) -> dict[str, str]:
        """As `object_store.options` takes them."""
        return {
            "aws_endpoint": self.address,
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test-secret",
            "aws_region": "us-east-1",
        }

    def make_bucket(self) -> str:
        """A new bucket's URL."""
        name = f"bucket-{secrets.token_hex(6)}"
        urllib.request.urlopen(
            urllib.request.Request(f"{self.address}/{name}", method="PUT"), timeout=10
        ).close()
        return f"s3://{name}/some/prefix"


@contextlib.contextmanager
def running_s3() -> Iterator[S3Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = S3Server(f"http://127.0.0.1:{port}", process)
        _wait_until_up(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_until_up(server: S3Server) -> None:
    ends_at = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(f"{server.address}/moto-api/", timeout=5).close()
            return
        except OSError:
            if time.monotonic() > ends_at or server.process.poll() is not None:
                raise
            time.sleep(0.05)  # another process starts; nothing tells when
