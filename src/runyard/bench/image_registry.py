"""A registry of made-up images in a thread, for measuring: busybox and a block of data that does not compress."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_PROGRAMS = ("sh", "echo", "true", "cat")


class ImageRegistry:
    """`downloads` counts GETs by digest or tag, `seen` are the blobs among them. Images are made with `add` and named
    `address/bench:TAG`."""

    def __init__(self) -> None:
        self.downloads: Counter[str] = Counter()
        self.seen: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.address = ""

    def add(self, tag: str, *, data_bytes: int = 0) -> str:
        """An image of two layers: busybox, and `data_bytes` of new data. Returns its name."""
        layers = [_busybox_layer(), _layer([("data", os.urandom(data_bytes), 0o644)])]
        rows = [self._put(gzip.compress(layer, 1, mtime=0)) for layer in layers]
        config = {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
            },
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._put(json.dumps(config).encode())
            | {"mediaType": "application/vnd.oci.image.config.v1+json"},
            "layers": [row | {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"} for row in rows],
        }
        body = json.dumps(manifest).encode()
        self.manifests[tag] = body
        self.manifests[f"sha256:{hashlib.sha256(body).hexdigest()}"] = body
        return f"{self.address}/bench:{tag}"

    def forget(self) -> None:
        """Lets go of all images: they are held in memory."""
        self.blobs.clear()
        self.manifests.clear()

    def _put(self, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        self.seen.add(digest)
        return {"digest": digest, "size": len(data)}


@contextlib.contextmanager
def image_registry() -> Iterator[ImageRegistry]:
    """Raises RuntimeError where there is no static busybox to make an image of."""
    registry = ImageRegistry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, _, name = self.path.rpartition("/")
            found = (registry.blobs if kind.endswith("blobs") else registry.manifests).get(name)
            if self.command == "GET":
                registry.downloads[name] += 1
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(found or b"")))
            if kind.endswith("manifests") and found is not None:
                self.send_header("Content-Type", _MANIFEST)
                self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(found).hexdigest()}")
            self.end_headers()
            if found is not None and self.command == "GET":
                self.wfile.write(found)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry.address = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield registry
        finally:
            server.shutdown()


def _busybox_layer() -> bytes:
    path = shutil.which("busybox")
    if path is None:
        raise RuntimeError("measuring images needs a static busybox: apt-get install busybox-static")
    return _layer([("bin/busybox", Path(path).read_bytes(), 0o755)], [f"bin/{name}" for name in _PROGRAMS])


def _layer(files: list[tuple[str, bytes, int]], links: list[str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content, mode in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
        for name in links or ():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(info)
    return buffer.getvalue()


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
