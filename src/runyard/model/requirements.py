"""What a job needs of a place, and the class that equal needs form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Isolation(IntEnum):
    """How far a job is kept from the rest; a job states the least it accepts."""

    NONE = 0
    CONTAINER = 1
    MICROVM = 2

    @property
    def word(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, word: str) -> Isolation:
        """The level named `none`, `container` or `microvm`. Raises KeyError for any other word."""
        return cls[word.upper()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """A job's needs, which are also its limits while it runs.

    `cpu_millis` is in thousandths of a core. `disk_bytes`, `arch` and `os` are None where the job does not care.
    `network` (`none`, `open`, or `allow` for a list, which is the job's own), `needs_images` (a step names an image)
    and `needs_services` (programs beside the steps) are part of it because a place may be unable to give any.
    """

    isolation: Isolation = Isolation.CONTAINER
    cpu_millis: int = 1000
    memory_bytes: int = 1 << 30
    disk_bytes: int | None = None
    arch: str | None = None
    os: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = "none"
    needs_images: bool = False
    needs_services: bool = False

    def class_key(self) -> str:
        """Equal requirements have equal keys: 16 hexadecimal digits, stable over processes and releases."""
        document: dict[str, object] = {
            "isolation": self.isolation.word,
            "cpu": self.cpu_millis,
            "memory": self.memory_bytes,
            "disk": self.disk_bytes,
            "arch": self.arch,
            "os": self.os,
            "labels": sorted(self.labels.items()),
            "network": self.network,
        }
        if self.needs_images:  # only then, so that classes keep their keys
            document["needs_images"] = True
        if self.needs_services:
            document["needs_services"] = True
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def resource_seconds(requirements: Requirements, wall_s: float) -> float:
    """What holding these resources for `wall_s` costs: core-seconds, or quarters of GiB-seconds if that is more.

    The dominant of the two, so that a job of little cpu and much memory does not ride free; one core with 4 GiB is
    the exchange rate that general-purpose machines are sold at.
    """
    return wall_s * max(requirements.cpu_millis / 1000, requirements.memory_bytes / (4 << 30))
