"""A real dockerd of the tests' own: its sockets, data and processes in a short temporary folder (containerd's sockets
are named beneath it), no bridge and no rule in the host's packet filter unless asked for."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

BUSYBOX = "/bin/busybox"
IMAGE = "runyard-test/busybox:1"
_QUIET = ("--bridge=none", "--iptables=false", "--ip6tables=false")
START_S = 60.0


class DockerDaemon:
    def __init__(
        self, folder: Path, *options: str, network: Sequence[str] = _QUIET, inside: Sequence[str] = ()
    ) -> None:
        """`inside`: a command that starts it, such as `ip netns exec …`."""
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.address = f"unix://{self.socket}"
        self._command = [
            *inside,
            "dockerd",
            f"--host={self.address}",
            f"--data-root={folder}/data",
            f"--exec-root={folder}/exec",
            f"--pidfile={folder}/pid",
            *network,
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        ends_at = time.monotonic() + START_S
        while self.run("version", check=False).returncode:
            assert self._process.poll() is None, self.words()
            assert time.monotonic() < ends_at, self.words()
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(40)
            self._process = None

    def kill(self) -> None:
        """As a crash: it takes nothing with it but itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It hangs: connections are taken, nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    @property
    def command(self) -> list[str]:
        return ["docker", f"--host={self.address}"]

    def run(self, *words: str, check: bool = True, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self.command, *words], check=check, capture_output=True, input=given)

    def words(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def import_busybox(self, name: str = IMAGE, *changes: str) -> None:
        """An image made of the static busybox alone. `changes` are Dockerfile instructions."""
        options = [word for change in changes for word in ("--change", change)]
        self.run("import", *options, "-", name, given=busybox_tar())


def busybox_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "dev", "sys"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox")
        for name in subprocess.run(
            [BUSYBOX, "--list"], check=True, capture_output=True, text=True
        ).stdout.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if name != "busybox":
                tar.addfile(link)
    return out.getvalue()


@contextlib.contextmanager
def docker_daemon(*options: str, **more: Sequence[str]) -> Iterator[DockerDaemon]:
    with tempfile.TemporaryDirectory(prefix="rd-", ignore_cleanup_errors=True) as folder:
        daemon = DockerDaemon(Path(folder), *options, **more)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


def why_missing() -> str | None:
    """Why no daemon can be started here, or None."""
    if os.geteuid() != 0:
        return "dockerd needs root"
    return (
        None
        if shutil.which("dockerd") and shutil.which("docker")
        else "no dockerd: apt-get install docker.io"
    )
