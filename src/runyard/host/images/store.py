"""The images of this host: each downloaded once and unpacked once, however many attempts ask for it at once.

Whoever asks, the registry is asked first, with the credentials of the asking tenant: a hit is served only when it said
yes within `RIGHTS_S`. What an attempt was given stays until it lets go of it, over a restart too, because its plan
names it; the rest goes by the longest unused when the disk budget is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runyard.host.images.disk import (
    FILE_SYSTEM,
    ImageDisk,
    ImageProcess,
    StoredImage,
    StoredLayer,
    chain_ids,
)
from runyard.host.images.eviction import choose_evicted
from runyard.host.images.layer_stream import LayerRefused
from runyard.host.images.rights import RIGHTS_S, Asker, Rights, origin_of
from runyard.host.images.single_flight import SingleFlight
from runyard.host.images.unpacker import Unpacker, UnpackFailed
from runyard.host.images.users import ImageUser, find_user
from runyard.host.linux import boottime, sync_file_system
from runyard.registry.client import RegistryClient
from runyard.registry.credentials import CredentialStore
from runyard.registry.images import ImageConfig, Layer, ResolvedImage
from runyard.registry.reference import Reference, parse_reference

DOWNLOADS_MAX = 4  # of one image at once
Report = Callable[[int, int], None]
"""Packed bytes that are done, and of how many."""


class ImageTooLarge(Exception):
    """It alone is more than the disk budget."""


class ImageDiskFull(Exception):
    """The budget is taken by images in use: it may fit later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyImage:
    """An image to be run: its layers' folders from the top down, leased; what its configuration says. `layer_uses`: how
    many of its layers were `present`, had to be `pulled`, or were being pulled for another that it `joined`."""

    name: str
    digest: str
    layers: tuple[str, ...]
    env: Mapping[str, str]
    user: ImageUser
    layer_uses: Mapping[str, int]
    process: ImageProcess = field(default_factory=ImageProcess)


class ImageStore:
    """Owns `folder`. `rewrite` leads a name to a mirror. `clock` is in seconds that only grow."""

    def __init__(
        self,
        folder: Path,
        client: RegistryClient,
        credentials: CredentialStore,
        *,
        bytes_max: int,
        unpacker: Unpacker | None = None,
        rewrite: Callable[[Reference], Reference] = lambda reference: reference,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._disk = ImageDisk(folder)
        self._client = client
        self._credentials = credentials
        self._bytes_max = bytes_max
        self._unpacker = unpacker or Unpacker()
        self._rewrite = rewrite
        self._rights = Rights(client, clock)
        self._leases: dict[str, set[str]] = {}
        self._describing: SingleFlight[ResolvedImage] = SingleFlight()
        self._pulling: SingleFlight[None] = SingleFlight()
        self._downloading: SingleFlight[None] = SingleFlight()
        self._unpacking: SingleFlight[None] = SingleFlight()
        self._making_room = asyncio.Lock()
        self._resolved: dict[tuple[Asker, str], ResolvedImage] = {}
        self._listeners: dict[str, list[Report]] = {}
        self._chores: set[asyncio.Task[None]] = set()

    @property
    def bytes(self) -> int:
        return self._disk.bytes

    async def start(self, leases: Mapping[str, Iterable[str]] | None = None) -> None:
        """Reads what is there and cleans up after a process that died. `leases`: what attempts that exist were given,
        by their name: the layers' folders."""
        leftovers = await asyncio.to_thread(self._disk.load)
        chains = {str(layer.root): layer.chain for layer in self._disk.layers.values()}
        for name, roots in (leases or {}).items():
            self._leases[name] = {chains[root] for root in roots if root in chains}
        for path in leftovers:
            self._spawn(self._unpacker.remove(path))

    async def close(self) -> None:
        flights: SingleFlight[Any]
        for flights in (
            self._pulling,
            self._downloading,
            self._unpacking,
            self._describing,
        ):
            await flights.close()
        await self._rights.close()
        for chore in list(self._chores):
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self._unpacker.close()

    async def obtain(
        self, name: str, *, tenant: str, lease: str, report: Report = lambda done, total: None
    ) -> ReadyImage:
        """The image, there and leased to `lease` until `release`. Raises Invalid (the name), RegistryError,
        LayerRefused, ImageTooLarge (all final but RegistryUnreachable and RegistryThrottled), UnpackFailed,
        ImageDiskFull (both may pass)."""
        named = parse_reference(name)
        reference = self._rewrite(named)
        credentials = await self._credentials.find(reference.host, reference.repository, tenant=tenant)
        asker = Asker(tenant, reference, origin_of(named), credentials)
        digest = await self._rights.digest(asker)
        image, uses = self._disk.find(digest, asker.origin), Counter[str]()
        if image is None:
            image, uses = await self._pulled(asker, digest, lease, report)
        uses["present"] = len(image.chains) - uses.total()
        self._leases.setdefault(lease, set()).update(image.chains)
        self._disk.touch(image.digest)
        return ReadyImage(
            name=name,
            digest=image.digest,
            layers=tuple(str(root) for root in self._disk.roots(image)),
            env=image.env,
            user=image.user,
            layer_uses=dict(+uses),
            process=image.process,
        )

    def release(self, lease: str) -> None:
        """Missing is success."""
        self._leases.pop(lease, None)

    # -- pulling ----------------------------------------------------------------------------------------------------

    async def _pulled(
        self, asker: Asker, digest: str, lease: str, report: Report
    ) -> tuple[StoredImage, Counter[str]]:
        """The image, and how many of its layers were not there."""
        uses: Counter[str] = Counter()
        resolved = await self._describing.do((asker, digest), lambda: self._describe(asker, digest))
        image = self._disk.find(resolved.digest, asker.origin)
        if image is None:
            chains = chain_ids(layer.diff_id for layer in resolved.layers)
            self._leases.setdefault(lease, set()).update(
                chains
            )  # those beneath are there before the whole is
            listeners = self._listeners.setdefault(resolved.digest, [])
            listeners.append(report)
            try:
                key = resolved.digest, asker.origin
                missing = sum(not self._disk.has_layer(chain, asker.origin) for chain in chains)
                uses["joined" if self._pulling.is_under_way(key) else "pulled"] = missing
                await self._pulling.do(key, lambda: self._pull(asker, resolved, chains))
            finally:
                listeners.remove(report)
            image = self._disk.images[resolved.digest]
        if digest not in (image.digest, *image.named):
            await asyncio.to_thread(self._disk.keep_image, _named(image, digest))
            image = self._disk.images[image.digest]
        return image, uses

    async def _describe(self, asker: Asker, digest: str) -> ResolvedImage:
        """Kept for as long as the right, so that who comes while it is pulled does not fetch its configuration anew."""
        kept = self._resolved.get((asker, digest))
        if kept is None:
            at = asker.reference.at(digest)
            kept = await self._client.resolve(at, credentials=asker.credentials)
            self._resolved = {key: image for key, image in self._resolved.items() if self._rights.has(key[0])}
            self._resolved[asker, digest] = kept
        return kept

    async def _pull(self, asker: Asker, resolved: ResolvedImage, chains: Sequence[str]) -> None:
        lease = f"pull {resolved.digest} {asker.origin}"
        self._leases[lease] = set(chains)
        try:
            await self._pull_layers(asker, resolved, chains)
            roots = [self._disk.layers[chain].root for chain in reversed(chains)]
            user = await asyncio.to_thread(find_user, resolved.config.user, roots)
            image = StoredImage(
                digest=resolved.digest,
                chains=tuple(chains),
                named=(resolved.named_digest,),
                origins=(asker.origin,),
                env=dict(resolved.config.env),
                user=user,
                process=_process(resolved.config),
            )
            await asyncio.to_thread(self._disk.keep_image, image)
        finally:
            del self._leases[lease]
        self._spawn(self._write_out(chains))

    async def _pull_layers(self, asker: Asker, resolved: ResolvedImage, chains: Sequence[str]) -> None:
        """Downloads run ahead; each layer is unpacked over those beneath it as soon as it is there."""
        missing = [
            (layer, chain)
            for layer, chain in zip(resolved.layers, chains, strict=True)
            if not self._disk.has_layer(chain, asker.origin)
        ]
        if resolved.size > self._bytes_max:
            raise ImageTooLarge(_too_large(asker.reference, resolved.size, self._bytes_max))
        await self._make_room(sum(layer.size for layer, _ in missing))
        progress = _Progress(sum(layer.size for layer, _ in missing), self._tell(resolved.digest))
        gate = asyncio.Semaphore(DOWNLOADS_MAX)
        downloads = [
            asyncio.create_task(self._download(asker, layer, gate, progress))
            for layer in dict.fromkeys(layer for layer, _ in missing)
        ]
        by_layer = dict(zip(dict.fromkeys(layer for layer, _ in missing), downloads, strict=True))
        try:
            for layer, chain in missing:
                await by_layer[layer]
                below = chains[: chains.index(chain)]
                await self._unpacking.do(chain, lambda: self._unpack(asker, layer, chain, below))  # noqa: B023 - awaited here
                if not self._disk.has_layer(chain, asker.origin):
                    layer_here = self._disk.layers[chain]
                    proven = replace(layer_here, origins=(*layer_here.origins, asker.origin))
                    await asyncio.to_thread(self._disk.write_facts, proven)
                    self._disk.exchange_layer(layer_here, proven)
                await self._make_room(0, pulled=(asker.reference, chains))
        finally:
            for task in downloads:
                task.cancel()
            await asyncio.gather(*downloads, return_exceptions=True)
        for layer in by_layer:
            await asyncio.to_thread(self._disk.blob(layer.digest, asker.origin).unlink, missing_ok=True)

    def _tell(self, digest: str) -> Report:
        def tell(done: int, total: int) -> None:
            for report in self._listeners.get(digest, ()):
                report(done, total)

        return tell

    async def _download(
        self, asker: Asker, layer: Layer, gate: asyncio.Semaphore, progress: _Progress
    ) -> None:
        async with gate:
            blob = self._disk.blob(layer.digest, asker.origin)
            if not blob.exists():
                await self._downloading.do(blob, lambda: self._download_blob(asker, layer, blob, progress))
            progress.complete(layer.digest, layer.size)

    async def _download_blob(self, asker: Asker, layer: Layer, blob: Path, progress: _Progress) -> None:
        temporary = self._disk.temporary()
        file = await asyncio.to_thread(open, temporary, "wb")
        try:
            done = 0
            stream = self._client.stream_blob(
                asker.reference, layer.digest, size=layer.size, credentials=asker.credentials
            )
            async for piece in stream:
                await asyncio.to_thread(file.write, piece)
                done += len(piece)
                progress.note(layer.digest, done)
            await asyncio.to_thread(file.close)
            os.rename(temporary, blob)
        except OSError as error:
            raise UnpackFailed(f"the layer {layer.digest} cannot be stored: {error}") from None
        finally:
            file.close()
            temporary.unlink(missing_ok=True)

    async def _unpack(self, asker: Asker, layer: Layer, chain: str, below: Sequence[str]) -> None:
        if chain in self._disk.layers:
            return
        temporary = self._disk.temporary()
        root = temporary / FILE_SYSTEM
        os.mkdir(temporary, 0o700)
        os.mkdir(root, 0o755)
        lowers = [self._disk.layers[each] for each in reversed(below)]
        try:
            facts = await self._unpacker.unpack(
                self._disk.blob(layer.digest, asker.origin),
                root,
                diff_id=layer.diff_id,
                lowers=[(lower.root, lower.opaque) for lower in lowers],
            )
            await asyncio.to_thread(self._disk.keep_layer, chain, temporary, facts, asker.origin)
        except BaseException:
            self._spawn(self._unpacker.remove(temporary))
            raise

    # -- the disk budget --------------------------------------------------------------------------------------------

    async def _make_room(self, wanted: int, *, pulled: tuple[Reference, Sequence[str]] | None = None) -> None:
        """Lets images go until `wanted` more bytes fit. Raises ImageDiskFull, ImageTooLarge."""
        async with self._making_room:
            disk = self._disk
            if disk.bytes + wanted <= self._bytes_max:
                return
            eviction = choose_evicted(
                images={digest: image.chains for digest, image in disk.images.items()},
                last_used=disk.last_used,
                layer_bytes={chain: layer.bytes for chain, layer in disk.layers.items()},
                in_use=set().union(*self._leases.values()),
                bytes_max=self._bytes_max - wanted,
            )
            for digest in eviction.images:
                disk.drop_image(digest)
            for path in [disk.drop_layer(chain) for chain in eviction.layers]:
                await self._unpacker.remove(path)
        if pulled is not None:
            reference, chains = pulled
            own = sum(disk.layers[chain].bytes for chain in chains if chain in disk.layers)
            if own > self._bytes_max:
                raise ImageTooLarge(_too_large(reference, own, self._bytes_max))
        if eviction.bytes_left + wanted > self._bytes_max:
            raise ImageDiskFull(
                f"image_disk_max is {self._bytes_max} bytes, {eviction.bytes_left} of them are images in use"
            )

    async def _write_out(self, chains: Sequence[str]) -> None:
        """Behind the pull: a power failure must not leave files without their content and call them whole."""
        await asyncio.to_thread(sync_file_system, str(self._disk.folder))
        for layer in [self._disk.layers[chain] for chain in chains if chain in self._disk.layers]:
            kept = replace(layer, boot_id=None)  # it outlives a power failure
            with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                await asyncio.to_thread(self._disk.write_facts, kept)
                self._disk.exchange_layer(layer, kept)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def chore() -> None:
            with contextlib.suppress(UnpackFailed, OSError):
                await work

        task = asyncio.create_task(chore())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


class _Progress:
    def __init__(self, total: int, report: Report) -> None:
        self._total = total
        self._report = report
        self._done: dict[str, int] = {}

    def note(self, digest: str, done: int) -> None:
        self._done[digest] = done
        self._report(sum(self._done.values()), self._total)

    def complete(self, digest: str, size: int) -> None:
        self.note(digest, size)


def _named(image: StoredImage, name: str) -> StoredImage:
    return replace(image, named=(*image.named, name))


def _process(config: ImageConfig) -> ImageProcess:
    directory = config.working_dir or "/"
    return ImageProcess(
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        directory=directory if directory.startswith("/") else f"/{directory}",
        ports=config.ports,
    )


def _too_large(reference: Reference, size: int, bytes_max: int) -> str:
    return f"{reference} takes {size} bytes, the pool's image_disk_max is {bytes_max}"


__all__ = [
    "RIGHTS_S",
    "ImageDiskFull",
    "ImageStore",
    "ImageTooLarge",
    "LayerRefused",
    "ReadyImage",
    "StoredLayer",
    "UnpackFailed",
]
