"""A registry that does what a test says: answers by path, drops connections, lies about sizes; and notes who asked."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from runyard.registry.images import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Answer:
    """`cut` sends only so many bytes of the body and then drops the connection; `length` -1 states none."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    length: int | None = None


Handler = Callable[[Asked], Answer | None]


class ScriptedRegistry:
    """Serves what was put into it on a loopback port; `before` may answer instead."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.content: dict[str, Answer] = {}
        self.before: Handler = lambda asked: None
        self.port = 0

    def url(self, host: str) -> str:
        return f"http://{host}:{self.port}"

    def paths(self, method: str = "GET") -> list[str]:
        return [one.path for one in self.asked if one.method == method]

    def put_blob(self, repository: str, body: bytes) -> str:
        digest = digest_of(body)
        self.content[f"/v2/{repository}/blobs/{digest}"] = Answer(body=body)
        return digest

    def put_manifest(self, repository: str, names: list[str], document: dict, media_type: str) -> str:
        body = json.dumps(document).encode()
        digest = digest_of(body)
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        for name in (*names, digest):
            self.content[f"/v2/{repository}/manifests/{name}"] = Answer(headers=headers, body=body)
        return digest

    def put_image(
        self, repository: str = "team/app", tag: str = "1", layers: tuple[bytes, ...] = (b"layer",), **config
    ) -> str:
        """The manifest's digest. `config` goes to the image's config document."""
        own = config_document(layers, **config)
        body = json.dumps(own).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(CONFIG, self.put_blob(repository, body), len(body)),
            "layers": [descriptor(LAYER, self.put_blob(repository, layer), len(layer)) for layer in layers],
        }
        return self.put_manifest(repository, [tag], manifest, OCI_MANIFEST)

    def put_index(self, repository: str, tag: str, entries: list[tuple[str, dict]]) -> str:
        rows = [
            {**descriptor(DOCKER_MANIFEST, digest, 1), "platform": platform} for digest, platform in entries
        ]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}
        return self.put_manifest(repository, [tag], index, OCI_INDEX)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """On every loopback address, so that several names can be at several addresses of one port."""
        server = await asyncio.start_server(self._converse, "0.0.0.0", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                pairs = (line.partition(":") for line in head[1:] if line)
                asked = Asked(method, path, {name.lower(): value.strip() for name, _, value in pairs})
                if length := int(asked.headers.get("content-length", 0)):
                    asked.headers["body"] = (await reader.readexactly(length)).decode()
                self.asked.append(asked)
                answer = self.before(asked) or self._answer(asked)
                writer.write(_encode(asked, answer))
                await writer.drain()
                if answer.cut is not None:
                    break
        writer.close()

    def _answer(self, asked: Asked) -> Answer:
        found = self.content.get(asked.path)
        if found is None:
            return Answer(404, body=b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
        wanted = asked.headers.get("range", "")
        if wanted.startswith("bytes=") and wanted.endswith("-"):
            start = int(wanted[6:-1])
            size = len(found.body)
            return Answer(206, {"Content-Range": f"bytes {start}-{size - 1}/{size}"}, found.body[start:])
        return found


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def descriptor(media_type: str, digest: str, size: int) -> dict:
    return {"mediaType": media_type, "digest": digest, "size": size}


def config_document(layers: tuple[bytes, ...], *, architecture: str = "amd64", **config) -> dict:
    return {
        "os": "linux",
        "architecture": architecture,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(b"unpacked " + layer) for layer in layers]},
    }


def _encode(asked: Asked, answer: Answer) -> bytes:
    length = len(answer.body) if answer.length is None else answer.length
    stated = {"Content-Length": str(length)} if length >= 0 else {"Connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} Said"]
    lines += [f"{name}: {value}" for name, value in {**stated, **answer.headers}.items()]
    body = b"" if asked.method == "HEAD" else answer.body[: answer.cut]
    return "\r\n".join((*lines, "", "")).encode() + body
