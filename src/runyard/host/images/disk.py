"""Unpacked layers and what is known of the images that they make up, on disk: whole or not there at all.

`layers/CHAIN/` holds a layer's `fs/` and what is known of it; CHAIN names the layer and all beneath it, as the image
specification's chain id does, because a folder that a layer does not name is taken from beneath. `images/DIGEST.json`
is written when all layers are there; `blobs/` holds what is downloaded and not unpacked yet. Everything is made in
`tmp/` and renamed into place; what lies in `tmp/` at the start is what a dead process left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from runyard.host.images.unpack import LayerFacts
from runyard.host.images.users import ImageUser
from runyard.host.linux import boot_id

FILE_SYSTEM, _FACTS = "fs", "layer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """`bytes` is about what it takes of the disk. `origins` are whose registries gave its whole content. `boot_id` is
    the boot that it was unpacked in while it may not have reached the disk; None: it has."""

    chain: str
    root: Path
    bytes: int
    opaque: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    boot_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProcess:
    """What an image runs when it is run as it is: a whole command is `entrypoint` and `cmd`. `ports` are the TCP ports
    that it says it listens on."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    directory: str = "/"
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """`digest` is its manifest's, `named` what names pointed at (an index's); `chains` are its layers, lowest first;
    `origins` are whose registries gave the whole of it."""

    digest: str
    chains: tuple[str, ...]
    named: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: ImageUser = field(default_factory=ImageUser)
    process: ImageProcess = field(default_factory=ImageProcess)


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """OCI image specification, config.md, "Layer ChainID"."""
    chains: list[str] = []
    for diff_id in diff_ids:
        text = f"{chains[-1]} {diff_id}" if chains else diff_id
        chains.append(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if chains else diff_id)
    return tuple(chains)


class ImageDisk:
    """What it says is there is there. Blocks on small files only; trees are removed by whoever gets their path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layers: dict[str, StoredLayer] = {}
        self.images: dict[str, StoredImage] = {}
        self.last_used: dict[str, float] = {}

    def load(self) -> list[Path]:
        """Makes the folders and reads them. Returns what is to be removed: leftovers, and layers that the machine may
        not have written out before it went down."""
        for name in ("", "layers", "images", "blobs", "tmp"):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        this_boot = boot_id()
        for entry in (self.folder / "layers").iterdir():
            layer = _read_layer(entry, this_boot)
            if layer is None:
                self._discard(entry)
            else:
                self.layers[layer.chain] = layer
        for file in (self.folder / "images").iterdir():
            image = _read_image(file)
            if image is None or not self.layers.keys() >= set(image.chains):
                file.unlink()
            else:
                self.images[image.digest] = image
                self.last_used[image.digest] = file.stat().st_mtime
        return list((self.folder / "tmp").iterdir())

    @property
    def bytes(self) -> int:
        return sum(layer.bytes for layer in self.layers.values())

    def temporary(self) -> Path:
        return self.folder / "tmp" / secrets.token_hex(8)

    def blob(self, digest: str, origin: str) -> Path:
        """Apart by origin: that one gave it proves nothing of another."""
        return self.folder / "blobs" / f"{hashlib.sha256(origin.encode()).hexdigest()[:16]}-{_hex(digest)}"

    def roots(self, image: StoredImage) -> tuple[Path, ...]:
        """Its layers' folders from the top down."""
        return tuple(self.layers[chain].root for chain in reversed(image.chains))

    def find(self, digest: str, origin: str) -> StoredImage | None:
        """By its own digest or one that named it, if it came from there."""
        image = self.images.get(digest)
        if image is None:
            image = next((each for each in self.images.values() if digest in each.named), None)
        return image if image is not None and origin in image.origins else None

    def has_layer(self, chain: str, origin: str) -> bool:
        layer = self.layers.get(chain)
        return layer is not None and origin in layer.origins

    def keep_layer(self, chain: str, temporary: Path, facts: LayerFacts, origin: str) -> None:
        """Puts a folder whose `fs` was unpacked in its place."""
        target = self.folder / "layers" / _hex(chain)
        layer = StoredLayer(
            chain=chain,
            root=target / FILE_SYSTEM,
            bytes=facts.bytes + 512 * facts.entries,
            opaque=facts.opaque,
            origins=(origin,),
            boot_id=boot_id(),
        )
        _write_layer(layer, temporary / _FACTS)
        os.rename(temporary, target)
        self.layers[chain] = layer

    def keep_image(self, image: StoredImage) -> None:
        before = self.images.get(image.digest)
        if before is not None:
            image = replace(
                image,
                named=tuple(dict.fromkeys((*before.named, *image.named))),
                origins=tuple(dict.fromkeys((*before.origins, *image.origins))),
            )
        temporary = self.temporary()
        temporary.write_text(json.dumps(asdict(image)))
        os.replace(temporary, self._image_file(image.digest))
        self.images[image.digest] = image
        self.touch(image.digest)

    def touch(self, digest: str) -> None:
        """It is the one used last."""
        file = self._image_file(digest)
        with contextlib.suppress(FileNotFoundError):
            os.utime(file)
            self.last_used[digest] = file.stat().st_mtime

    def write_facts(self, layer: StoredLayer) -> None:
        """Beside the layer. Raises FileNotFoundError where it was dropped meanwhile. May run in a thread."""
        temporary = self.temporary()
        _write_layer(layer, temporary)
        try:
            os.replace(temporary, layer.root.parent / _FACTS)
        except FileNotFoundError:
            temporary.unlink()
            raise

    def exchange_layer(self, before: StoredLayer, after: StoredLayer) -> None:
        """Nothing where it is another by now, or was dropped: it must not come back."""
        if self.layers.get(before.chain) is before:
            self.layers[before.chain] = after

    def drop_image(self, digest: str) -> None:
        self._image_file(digest).unlink(missing_ok=True)
        self.images.pop(digest, None)
        self.last_used.pop(digest, None)

    def drop_layer(self, chain: str) -> Path:
        """Out of its place at once; the path of what is still to be removed."""
        layer = self.layers.pop(chain)
        return self._discard(layer.root.parent)

    def _discard(self, path: Path) -> Path:
        target = self.temporary()
        os.rename(path, target)
        return target

    def _image_file(self, digest: str) -> Path:
        return self.folder / "images" / f"{_hex(digest)}.json"


def _write_layer(layer: StoredLayer, file: Path) -> None:
    document = {
        "chain": layer.chain,
        "bytes": layer.bytes,
        "opaque": layer.opaque,
        "origins": layer.origins,
        "boot_id": layer.boot_id,
    }
    file.write_text(json.dumps(document))


def _read_layer(folder: Path, this_boot: str) -> StoredLayer | None:
    try:
        document = json.loads((folder / _FACTS).read_text())
        if document["boot_id"] not in (None, this_boot):
            return None
        return StoredLayer(
            chain=document["chain"],
            root=folder / FILE_SYSTEM,
            bytes=document["bytes"],
            opaque=tuple(document["opaque"]),
            origins=tuple(document["origins"]),
            boot_id=document["boot_id"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_image(file: Path) -> StoredImage | None:
    try:
        document = json.loads(file.read_text())
        user, process = (
            document.pop("user"),
            document.pop("process"),
        )  # an older release kept no process: asked anew
        return StoredImage(
            digest=document["digest"],
            chains=tuple(document["chains"]),
            named=tuple(document["named"]),
            origins=tuple(document["origins"]),
            env=document["env"],
            user=ImageUser(user_id=user["user_id"], group_id=user["group_id"], groups=tuple(user["groups"])),
            process=ImageProcess(
                entrypoint=tuple(process["entrypoint"]),
                cmd=tuple(process["cmd"]),
                directory=process["directory"],
                ports=tuple(process["ports"]),
            ),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
