"""A real registry (Debian's docker-registry) on a free port, and images of nothing but busybox to fill it with."""

import asyncio
import hashlib
import io
import json
import re
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import httpx2

USER, PASSWORD = "ci", "s3cret-of-team"
_HTPASSWD = f"{USER}:$2b$04$ONj4hKHAyvc5VkAzJJkFLeJEmmVImyHSOMAMHS9bRyLL0lyLMcJoS\n"  # bcrypt of PASSWORD


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Upstream:
    """`stop` and `start` keep its content and its port. Its access log tells who asked what."""

    def __init__(self, folder: Path, *, has_login: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.has_login = has_login
        self._log = folder / "access.log"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "htpasswd").write_text(_HTPASSWD)
        auth = f"auth: {{htpasswd: {{realm: test, path: {folder / 'htpasswd'}}}}}" if has_login else ""
        (folder / "config.yml").write_text(
            f"""
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder / "content"}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{self.port}"}}
{auth}
"""
        )

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def login(self) -> list[str]:
        return [f"{USER}:{PASSWORD}"] if self.has_login else []

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(self.folder / "config.yml")], stdout=log, stderr=log
            )
        ends_at = time.monotonic() + 20
        while True:
            try:
                httpx2.get(f"http://{self.host}/v2/", trust_env=False)
                return
            except httpx2.TransportError:
                assert time.monotonic() < ends_at, self._log.read_text()
                assert self._process.poll() is None, self._log.read_text()
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def asked(self, method: str, kind: str) -> list[str]:
        """What was asked for so far, from the access log; complete once it is stopped."""
        return re.findall(rf'"{method} /v2/(\S+/{kind}/\S+) HTTP', self._log.read_text())

    def push(self, archive: Path, name: str) -> None:
        login = ["--dest-creds", *self.login] if self.has_login else []
        skopeo(
            "copy",
            "--dest-tls-verify=false",
            *login,
            f"docker-archive:{archive}",
            f"docker://{self.host}/{name}",
        )


def skopeo(*arguments: str) -> None:
    command = ["skopeo", "--insecure-policy", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


async def skopeo_async(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "skopeo", "--insecure-policy", *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


def pack_image(archive: Path, *, layers: int = 2, salt: str = "", megabytes: int = 0) -> Path:
    """A docker-archive of busybox and small layers; `megabytes` of what does not compress in the last."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    packed = [_layer({"bin/busybox": Path(busybox).read_bytes(), "bin/sh": "busybox"})]
    for number in range(1, layers):
        noise = hashlib.shake_128(f"{salt} {number}".encode()).digest(megabytes << 20 or 100)
        packed.append(_layer({f"layer-{number}": noise}))
    digests = [hashlib.sha256(layer).hexdigest() for layer in packed]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "Labels": {"salt": salt}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        }
    ).encode()
    names = [f"{digest}/layer.tar" for digest in digests]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": names}]).encode()
    with tarfile.open(archive, "w") as tar:
        for name, body in (
            ("config.json", config),
            *zip(names, packed, strict=True),
            ("manifest.json", manifest),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return archive


def _layer(files: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size, entry.mode = len(content), 0o755
                tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
