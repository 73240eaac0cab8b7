"""What a registry's documents say: an index, an image's manifest and its config, as values. Pure.

Sources: the OCI image specification (image-index.md, manifest.md, config.md) and Docker's image manifest v2, schema 2.
A document comes from a stranger: what is not as the specification says is refused, and what we do not use is not read.
A layer's `urls` among it: whoever wrote the manifest would choose where we fetch from.
"""

from __future__ import annotations

import json
import platform as host
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runyard.model.errors import ImageUnsupported, RegistryCorrupt
from runyard.registry.reference import is_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFEST_TYPES = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
ACCEPT = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
CONFIG_TYPES = frozenset(
    ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
)
LAYERS_MAX = 512
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


@dataclass(frozen=True, slots=True)
class Platform:
    """In Go's words, as images say it."""

    architecture: str
    os: str = "linux"
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob or manifest as another document names it. `size` in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A packed layer, lowest first in an image; `diff_id` is the digest of what it unpacks to."""

    media_type: str
    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image wants of whoever runs it. `user` is `uid|name[:gid|name]`; empty strings are `not said`; `ports`
    are the TCP ports that it exposes."""

    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    ports: tuple[int, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image: its config and its packed layers."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """One platform's image, wholly named by digests.

    `digest` is that of the platform's manifest, `named_digest` what the tag named (an index's, where there is one).
    """

    digest: str
    named_digest: str
    config_digest: str
    layers: tuple[Layer, ...]
    config: ImageConfig

    @property
    def size(self) -> int:
        """Bytes of all its packed layers."""
        return sum(layer.size for layer in self.layers)


def host_platform() -> Platform:
    """The machine that this runs on."""
    machine = host.machine()
    return Platform(_ARCHITECTURES.get(machine, machine))


def parse_document(body: bytes, what: str) -> dict[str, Any]:
    """The JSON object of a registry's answer. Raises RegistryCorrupt."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise RegistryCorrupt(f"{what} is no JSON") from None
    if not isinstance(document, dict):
        raise RegistryCorrupt(f"{what} is no JSON object")
    return document


def media_type_of(document: Mapping[str, Any], header: str) -> str:
    """A document's own word for its type, else the answer's header, else what its keys show."""
    own = document.get("mediaType")
    if isinstance(own, str) and own:
        return own
    stated = header.partition(";")[0].strip().lower()
    if stated in INDEX_TYPES | MANIFEST_TYPES:
        return stated
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST if "layers" in document else stated


def choose_manifest(index: Mapping[str, Any], platform: Platform, what: str) -> Descriptor:
    """The entry of an index for a platform: its exact variant, else one that states none, else the first of the
    architecture that does. Raises ImageUnsupported that lists what there is."""
    entries = index.get("manifests")
    if not isinstance(entries, list):
        raise RegistryCorrupt(f"{what}: the index has no list of manifests")
    rows = [row for row in entries if isinstance(row, dict)]
    for is_fit in (_has_variant(platform.variant), _has_variant(None), _any_variant):
        for row in rows:
            stated = row.get("platform")
            if isinstance(stated, dict) and _is_for(stated, platform) and is_fit(stated):
                return _descriptor(row, what)
    known = sorted({_platform_text(row["platform"]) for row in rows if isinstance(row.get("platform"), dict)})
    there = ", ".join(known[:20]) or "nothing that states its platform"
    raise ImageUnsupported(
        f"{what} is not made for {platform}; it is for {there}",
        field="image",
        cure="name an image, or a tag of it, for this platform",
    )


def parse_manifest(document: Mapping[str, Any], what: str) -> Manifest:
    """Raises RegistryCorrupt, and ImageUnsupported for artifacts that are no image and for too many layers."""
    config = document.get("config")
    layers = document.get("layers")
    if not isinstance(config, dict) or not isinstance(layers, list):
        raise ImageUnsupported(f"{what} is no image manifest of a known kind", field="image")
    if len(layers) > LAYERS_MAX:
        raise ImageUnsupported(
            f"{what} has {len(layers)} layers; at most {LAYERS_MAX} are taken", field="image"
        )
    parsed = _descriptor(config, what)
    if parsed.media_type not in CONFIG_TYPES:
        raise ImageUnsupported(
            f"{what} is no image to run but an artifact ({parsed.media_type!r:.80})", field="image"
        )
    return Manifest(parsed, tuple(_descriptor(row, what) for row in layers))


def parse_config(document: Mapping[str, Any], platform: Platform, what: str) -> tuple[ImageConfig, list[str]]:
    """The config and the layers' diff ids. Raises RegistryCorrupt, and ImageUnsupported where it is made for another
    platform."""
    stated = {"os": document.get("os") or "linux", "architecture": document.get("architecture") or ""}
    if not _is_for(stated, platform):
        raise ImageUnsupported(
            f"{what} is not made for {platform}; it is for {_platform_text(stated)}",
            field="image",
            cure="name an image, or a tag of it, for this platform",
        )
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(row, str) and is_digest(row) for row in diff_ids):
        raise RegistryCorrupt(f"{what}: the config has no list of diff_ids")
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise RegistryCorrupt(f"{what}: the config's `config` is no object")
    parsed = ImageConfig(
        env=_environment(config.get("Env") or [], what),
        entrypoint=_texts(config.get("Entrypoint"), what),
        cmd=_texts(config.get("Cmd"), what),
        working_dir=_text(config.get("WorkingDir"), what),
        user=_text(config.get("User"), what),
        stop_signal=_text(config.get("StopSignal"), what),
        ports=_tcp_ports(config.get("ExposedPorts")),
        labels=_labels(config.get("Labels"), what),
    )
    return parsed, diff_ids


def join_layers(manifest: Manifest, diff_ids: Sequence[str], what: str) -> tuple[Layer, ...]:
    """The packed layers with what each unpacks to. Raises RegistryCorrupt."""
    if len(diff_ids) != len(manifest.layers):
        raise RegistryCorrupt(
            f"{what}: {len(manifest.layers)} layers in the manifest, {len(diff_ids)} in the config"
        )
    pairs = zip(manifest.layers, diff_ids, strict=True)
    return tuple(Layer(row.media_type, row.digest, row.size, diff_id) for row, diff_id in pairs)


def blobs_named_by(document: Mapping[str, Any]) -> frozenset[str]:
    """Every digest that a manifest or an index names: what somebody who may read it may read too."""
    rows = [document.get("config"), document.get("subject")]
    for key in ("layers", "manifests", "blobs", "fsLayers"):
        listed = document.get(key)
        rows.extend(listed if isinstance(listed, list) else ())
    named = {row.get("digest") or row.get("blobSum") for row in rows if isinstance(row, dict)}
    return frozenset(digest for digest in named if isinstance(digest, str) and is_digest(digest))


def _descriptor(row: Any, what: str) -> Descriptor:
    if isinstance(row, dict):
        media_type, digest, size = row.get("mediaType", ""), row.get("digest"), row.get("size")
        is_sized = type(size) is int and size >= 0
        if isinstance(media_type, str) and isinstance(digest, str) and is_digest(digest) and is_sized:
            return Descriptor(media_type, digest, int(size or 0))
    raise RegistryCorrupt(f"{what} names a part without a sha256 digest and a size: {row!r:.120}")


def _is_for(stated: Mapping[str, Any], platform: Platform) -> bool:
    return stated.get("os") == platform.os and stated.get("architecture") == platform.architecture


def _has_variant(variant: str | None) -> Any:
    return lambda stated: (stated.get("variant") or None) == variant


def _any_variant(stated: Mapping[str, Any]) -> bool:
    return True


def _platform_text(stated: Mapping[str, Any]) -> str:
    words = (stated.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(word[:40] for word in words if isinstance(word, str) and word) or "an unstated platform"


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(part, str) and _is_plain(part) for part in value):
        return tuple(value)
    raise RegistryCorrupt(f"{what}: the config holds {value!r:.80} where a list of texts belongs")


def _tcp_ports(value: Any) -> tuple[int, ...]:
    """Of keys like `5432/tcp`, `8000-8010`; what is no port is no reason to refuse an image."""
    found: set[int] = set()
    for key in value if isinstance(value, dict) else ():
        port, _, protocol = str(key).partition("/")
        if protocol in ("", "tcp") and port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536:
            found.add(int(port))
    return tuple(sorted(found))


def _text(value: Any, what: str) -> str:
    if value is None or (isinstance(value, str) and _is_plain(value)):
        return value or ""
    raise RegistryCorrupt(f"{what}: the config holds {value!r:.80} where a text belongs")


def _is_plain(text: str) -> bool:
    """No NUL, which would end an argument and begin another one, and no half of a character, which no path can hold."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _labels(value: Any, what: str) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return dict(value)
    raise RegistryCorrupt(f"{what}: the config's labels are no texts")


def _environment(lines: Any, what: str) -> dict[str, str]:
    """Without what no variable can carry."""
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise RegistryCorrupt(f"{what}: the config holds {lines!r:.80} where a list of texts belongs")
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs if name and _is_plain(name + value)}
