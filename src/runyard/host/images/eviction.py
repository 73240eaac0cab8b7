"""Which images go when the disk budget is full: the longest unused first, never what is in use. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """`bytes_left` is what is there afterwards, however much was asked for."""

    images: tuple[str, ...]
    layers: tuple[str, ...]
    bytes_left: int


def choose_evicted(
    *,
    images: Mapping[str, Sequence[str]],
    last_used: Mapping[str, float],
    layer_bytes: Mapping[str, int],
    in_use: Collection[str],
    bytes_max: int,
) -> Eviction:
    """`images` name their layers; `in_use` are layers. A layer goes when no image that stays and nothing in use has
    it, so one that is shared stays as long as any. Layers of no image (a pull that failed) go first."""
    kept = dict(images)
    evicted: list[str] = []
    gone = set(_unneeded(kept, layer_bytes, in_use)) if sum(layer_bytes.values()) > bytes_max else set[str]()
    for image in sorted(images, key=lambda each: last_used.get(each, 0.0)):
        if sum(size for layer, size in layer_bytes.items() if layer not in gone) <= bytes_max:
            break
        if all(layer in in_use for layer in images[image]):
            continue
        del kept[image]
        evicted.append(image)
        gone |= set(_unneeded(kept, layer_bytes, in_use))
    left = sum(size for layer, size in layer_bytes.items() if layer not in gone)
    return Eviction(images=tuple(evicted), layers=tuple(sorted(gone)), bytes_left=left)


def _unneeded(
    images: Mapping[str, Sequence[str]], layer_bytes: Mapping[str, int], in_use: Collection[str]
) -> set[str]:
    needed = {layer for layers in images.values() for layer in layers} | set(in_use)
    return {layer for layer in layer_bytes if layer not in needed}
