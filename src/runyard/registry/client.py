"""A client of OCI registries that verifies all it reads: names to digests, images to their parts, blobs as streams.

Source: the OCI distribution specification, "Pulling". Every method raises RegistryError's classes; they and their cures
are fit to be shown to whoever named the image.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from runyard.model.errors import ImageUnsupported, RegistryCorrupt, RegistryUnreachable
from runyard.registry.blob_stream import BlobStream
from runyard.registry.connecting import Resolve, resolve_host
from runyard.registry.credentials import Credentials
from runyard.registry.exchange import Exchange, read_bounded
from runyard.registry.images import (
    ACCEPT,
    INDEX_TYPES,
    MANIFEST_TYPES,
    Manifest,
    Platform,
    ResolvedImage,
    choose_manifest,
    host_platform,
    join_layers,
    media_type_of,
    parse_config,
    parse_document,
    parse_manifest,
)
from runyard.registry.reference import Reference, is_digest

MANIFEST_BYTES_MAX = 4 << 20  # the least that the specification asks registries to take
CONFIG_BYTES_MAX = 8 << 20
TRIES = 3
_PAUSE_S = 0.2

Sleep: TypeAlias = Callable[[float], Awaitable[object]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index as the registry has it: `digest` is our own of `body`."""

    body: bytes
    media_type: str
    digest: str


class RegistryClient:
    """One for a service; it keeps connections and tokens. `close` it.

    `allow_address` is asked about each address before a connection: a job's image name, and whatever a registry
    redirects to, reach nothing else. Loopback hosts and `plain_http_hosts` are spoken to without TLS; `private_hosts`
    may be at any address. Hosts carry their port, as in references.
    """

    def __init__(
        self,
        *,
        allow_address: Callable[[str], bool],
        plain_http_hosts: frozenset[str] = frozenset(),
        private_hosts: frozenset[str] = frozenset(),
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve_host,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._exchange = Exchange(
            allow_address=allow_address,
            plain_http_hosts=plain_http_hosts,
            private_hosts=private_hosts,
            tls=tls,
            resolve=resolve,
        )
        self._sleep = sleep

    async def close(self) -> None:
        await self._exchange.close()

    async def resolve(
        self,
        reference: Reference,
        *,
        platform: Platform | None = None,
        credentials: Credentials | None = None,
    ) -> ResolvedImage:
        """The image for a platform (None: this machine's), through an index where there is one."""
        platform = platform or host_platform()
        named = await self.manifest(reference, credentials=credentials)
        document, chosen = parse_document(named.body, str(reference)), named
        if named.media_type in INDEX_TYPES:
            entry = choose_manifest(document, platform, str(reference))
            chosen = await self.manifest(reference.at(entry.digest), credentials=credentials)
            document = parse_document(chosen.body, str(reference))
        if chosen.media_type not in MANIFEST_TYPES:
            raise ImageUnsupported(
                f"{reference} is of the type {chosen.media_type!r:.80}, which is no image of today's formats",
                field="image",
                cure="push it again with a current client",
            )
        manifest = parse_manifest(document, str(reference))
        config, diff_ids = parse_config(
            await self._config(reference, manifest, credentials), platform, str(reference)
        )
        return ResolvedImage(
            digest=chosen.digest,
            named_digest=named.digest,
            config_digest=manifest.config.digest,
            layers=join_layers(manifest, diff_ids, str(reference)),
            config=config,
        )

    async def head(self, reference: Reference, *, credentials: Credentials | None = None) -> str:
        """The digest that a name has now: one small request, and the check of these credentials' rights to it."""
        return await self._retrying(lambda: self._head_once(reference, credentials))

    async def manifest(self, reference: Reference, *, credentials: Credentials | None = None) -> Document:
        """The document that a name or digest has, verified, at most MANIFEST_BYTES_MAX."""
        return await self._retrying(lambda: self._manifest_once(reference, credentials))

    async def head_blob(
        self, reference: Reference, digest: str, *, credentials: Credentials | None = None
    ) -> int | None:
        """Whether these credentials may read a blob in this repository, and its size where that is said."""
        return await self._retrying(lambda: self._head_blob_once(reference, digest, credentials))

    @contextlib.asynccontextmanager
    async def open_blob(
        self,
        reference: Reference,
        digest: str,
        *,
        size: int | None = None,
        credentials: Credentials | None = None,
        offset: int = 0,
        before: Any = None,
    ) -> AsyncIterator[BlobStream]:
        """A blob's bytes from `offset` on, verified when they end; its `size` is known once it is open.

        `size` None takes the registry's word for it. With an offset, `before` is the sha256 object that has seen the
        bytes before it. A dropped connection is resumed; RegistryCorrupt comes at the end, so nothing of it may be
        used before.
        """
        blob = BlobStream(
            self._exchange,
            reference,
            digest,
            size=size,
            credentials=credentials,
            offset=offset,
            before=before,
            sleep=self._sleep,
        )
        await blob.open()
        try:
            yield blob
        finally:
            await blob.close()

    async def stream_blob(
        self,
        reference: Reference,
        digest: str,
        *,
        size: int | None = None,
        credentials: Credentials | None = None,
        offset: int = 0,
        before: Any = None,
    ) -> AsyncIterator[bytes]:
        """The pieces of `open_blob`."""
        async with self.open_blob(
            reference, digest, size=size, credentials=credentials, offset=offset, before=before
        ) as blob:
            async for piece in blob:
                yield piece

    async def _config(
        self, reference: Reference, manifest: Manifest, credentials: Credentials | None
    ) -> dict[str, Any]:
        config = manifest.config
        if config.size > CONFIG_BYTES_MAX:
            raise ImageUnsupported(
                f"{reference}: its config is {config.size} bytes; at most {CONFIG_BYTES_MAX} are read",
                field="image",
            )
        parts = [
            piece
            async for piece in self.stream_blob(
                reference, config.digest, size=config.size, credentials=credentials
            )
        ]
        return parse_document(b"".join(parts), f"{reference}: the config")

    async def _head_once(self, reference: Reference, credentials: Credentials | None) -> str:
        path = f"/manifests/{reference.target}"
        async with self._exchange.request(
            "HEAD", reference, path, credentials=credentials, headers={"Accept": ACCEPT}
        ) as response:
            digest = response.headers.get("docker-content-digest", "")
        if reference.digest is not None:
            return reference.digest
        if is_digest(digest):
            return digest
        return (await self._manifest_once(reference, credentials)).digest

    async def _head_blob_once(
        self, reference: Reference, digest: str, credentials: Credentials | None
    ) -> int | None:
        async with self._exchange.request(
            "HEAD", reference, f"/blobs/{digest}", credentials=credentials
        ) as response:
            length = response.headers.get("content-length", "")
        return int(length) if length.isdecimal() and len(length) <= 18 else None

    async def _manifest_once(self, reference: Reference, credentials: Credentials | None) -> Document:
        path = f"/manifests/{reference.target}"
        async with self._exchange.request(
            "GET", reference, path, credentials=credentials, headers={"Accept": ACCEPT}
        ) as response:
            body = await read_bounded(response, MANIFEST_BYTES_MAX, reference, "a manifest")
            header = response.headers.get("content-type", "")
            stated = response.headers.get("docker-content-digest", "")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        wanted = reference.digest or (stated if is_digest(stated) else digest)
        if digest != wanted:
            raise RegistryCorrupt(f"{reference}: a manifest that should be {wanted} came as {digest}")
        return Document(body, media_type_of(parse_document(body, str(reference)), header), digest)

    async def _retrying(self, call: Callable[[], Awaitable[T]]) -> T:
        """What may pass later, a few times at once: a registry behind several machines drops one of them often."""
        for number in range(TRIES - 1):
            try:
                return await call()
            except RegistryUnreachable:
                await self._sleep(_PAUSE_S * 4**number)
        return await call()
