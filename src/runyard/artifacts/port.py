"""The artifact store's contract: files of an attempt, by their path relative to its workspace."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runyard.model.attempt import AttemptKey

ARTIFACTS_MAX = 10_000
ARTIFACT_BYTES_MAX = 10 << 30


@dataclass(frozen=True, slots=True)
class Artifact:
    """`path` is UTF-8; bytes that are none are written as `\\xNN`, and such a path opens the file too."""

    path: str
    size: int


class OpenArtifact(Protocol):
    """An artifact that was opened. Deleted meanwhile, it stays readable, or reading raises StoreUnavailable."""

    @property
    def size(self) -> int: ...

    async def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes; empty at the end."""
        ...

    def close(self) -> None: ...


class ArtifactSink(Protocol):
    """Where a collector that is far puts an attempt's files."""

    async def store(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        """Keeps one file: all of it or nothing, in the place of what had the path before. Raises Invalid for a path
        that leaves the attempt's directory, and above ARTIFACT_BYTES_MAX or ARTIFACTS_MAX of the attempt."""
        ...


class ArtifactStore(Protocol):
    def sink(self, key: AttemptKey) -> ArtifactSink: ...

    def directory(self, key: AttemptKey) -> Path:
        """Where a collector on this host puts the attempt's files; it makes the directory on need."""
        ...

    async def list(self, key: AttemptKey) -> list[Artifact]:
        """Plain files only, by path, at most ARTIFACTS_MAX of them; links are not followed and not listed."""
        ...

    async def open(self, key: AttemptKey, path: str) -> OpenArtifact | None:
        """None where there is no such plain file beneath the attempt's directory, whatever `path` tries."""
        ...

    async def delete(self, key: AttemptKey) -> None: ...

    async def delete_job(self, uid: str) -> None: ...

    async def size_bytes(self) -> int: ...
