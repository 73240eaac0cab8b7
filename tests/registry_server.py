"""A real registry (Debian's docker-registry) on a free port, and images for it, made by hand and pushed by skopeo."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.host.images.layers import archive, digest_of, packed

PROGRAMS = (
    "sh cat chown chmod ls id su touch mkdir ln rm mv stat echo grep env find sleep dd true head tr".split()
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1234:1235:Bob:/home/bob:/bin/sh\n"


def registry_program() -> str | None:
    return shutil.which("docker-registry")


def busybox_entries(release: str = "made by hand"):
    """A small whole image: busybox, a passwd, an os-release that says `release`."""
    from tests.host.images.layers import entry, link

    return [
        entry("bin"),
        entry("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
        *(link(f"bin/{name}", "busybox") for name in PROGRAMS),
        entry("etc"),
        entry("etc/passwd", PASSWD),
        entry("etc/group", "root:x:0:\nbob:x:1235:\n"),
        entry("etc/os-release", f'NAME="{release}"\n'),
        entry("tmp", mode=0o1777),
    ]


@dataclass
class Registry:
    """`requests` counts what was asked of it, by method and path."""

    address: str
    folder: Path
    process: subprocess.Popen
    log: Path = field(default_factory=Path)

    def push(self, name: str, *layers, config: dict | None = None, architecture: str = "amd64") -> str:
        """An image of these archives, the lowest layer first, each gzipped. Returns its manifest's digest."""
        layout = self.folder / "layouts" / name.replace("/", "_").replace(":", "_")
        digest = write_layout(layout, layers, config or {}, architecture)
        subprocess.run(
            ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:it", f"docker://{self.address}/{name}"],
            check=True, capture_output=True,
        )  # fmt: skip
        return digest

    def count(self, method: str, part: str) -> int:
        """How often it was asked for a path that holds `part`."""
        lines = self.log.read_text(errors="replace").splitlines()
        return sum(f'"{method} /v2/' in line and part in line for line in lines)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def write_layout(layout: Path, layers, config: dict, architecture: str = "amd64") -> str:
    """An OCI image layout (image-layout.md) with one image, tagged `it`."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes, media_type: str) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    archives = [layer if isinstance(layer, bytes) else archive(*layer) for layer in layers]
    rows = [put(packed(data), "application/vnd.oci.image.layer.v1.tar+gzip") for data in archives]
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in archives]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": rows,
    }
    entry = put(json.dumps(manifest).encode(), manifest["mediaType"])
    entry["annotations"] = {"org.opencontainers.image.ref.name": "it"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return entry["digest"]


@contextlib.contextmanager
def serving_registry(
    folder: Path, *, passwords: dict[str, str] | None = None, port: int = 0
) -> Iterator[Registry]:
    """`passwords`: users that it asks for, else it serves anybody."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": False}, "level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if passwords is not None:
        lines = (_htpasswd(user, password) for user, password in passwords.items())
        (folder / "htpasswd").write_text("\n".join(lines) + "\n")
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))
    log = folder / "registry.log"
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [registry_program(), "serve", str(folder / "config.yml")], stdout=output, stderr=output,
            env={"PATH": os.defpath, "HOME": str(folder)},
        )  # fmt: skip
    try:
        _await_answer(f"http://127.0.0.1:{port}/v2/")
        yield Registry(f"127.0.0.1:{port}", folder, process, log)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _await_answer(url: str) -> None:
    ends_at = time.monotonic() + 10
    while True:
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.02)


def _htpasswd(user: str, password: str) -> str:
    """docker-registry takes bcrypt only; PHP's and Apache's tools are not here, so libcrypt does it."""
    import ctypes
    import ctypes.util

    crypt = ctypes.CDLL(ctypes.util.find_library("crypt"))
    crypt.crypt.restype = ctypes.c_char_p
    found = crypt.crypt(password.encode(), b"$2b$04$abcdefghijklmnopqrstuu")
    return f"{user}:{found.decode()}"
