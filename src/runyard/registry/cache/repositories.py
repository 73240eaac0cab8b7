"""What of which repository the cache itself was allowed to read, kept across restarts.

One small file for each repository, replaced whole. A blob is served from a repository only after its registry said, by
sending it or by its answer to HEAD, that this repository has it: neither knowing a digest nor writing it into a
manifest is a right to read it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from runyard.registry.cache.disk import Disk

MANIFESTS_MAX = 1000  # of one repository; the longest unchecked go first
BLOBS_MAX = 10_000
LOADED_MAX = 2000


@dataclass(slots=True)
class TagEntry:
    """What a tag was at `checked_at` (seconds since the epoch)."""

    digest: str
    checked_at: float


@dataclass(slots=True)
class ManifestEntry:
    """A manifest that was allowed at `checked_at`."""

    media_type: str
    checked_at: float


@dataclass(slots=True)
class Repository:
    """What is known of one; `blobs` with the time at which its registry said that it has them."""

    upstream: str
    name: str
    tags: dict[str, TagEntry] = field(default_factory=dict)
    manifests: dict[str, ManifestEntry] = field(default_factory=dict)
    blobs: dict[str, float] = field(default_factory=dict)

    def add_manifest(self, digest: str, entry: ManifestEntry, *, tag: str | None) -> None:
        if tag is not None:
            self.tags[tag] = TagEntry(digest, entry.checked_at)
        self.manifests.pop(digest, None)
        self.manifests[digest] = entry
        while len(self.manifests) > MANIFESTS_MAX:
            gone = next(iter(self.manifests))
            del self.manifests[gone]
            self.tags = {tag: one for tag, one in self.tags.items() if one.digest != gone}

    def add_blob(self, digest: str, now: float) -> None:
        self.blobs.pop(digest, None)
        self.blobs[digest] = now
        while len(self.blobs) > BLOBS_MAX:
            del self.blobs[next(iter(self.blobs))]

    def forget(self) -> None:
        """All of it: the upstream took the rights away."""
        self.tags.clear()
        self.manifests.clear()
        self.blobs.clear()


class Repositories:
    """Loaded when first asked for, written after each change."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._disk = disk
        self._directory = directory / "repositories"
        self._loaded: OrderedDict[tuple[str, str], Repository] = OrderedDict()
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def open(self) -> None:
        """Raises OSError where the folder cannot be used."""
        await self._disk.run(self._prepare)

    async def get(self, upstream: str, name: str) -> Repository:
        key = (upstream, name)
        known = self._loaded.get(key)
        if known is None:
            read = await self._disk.run(self._read, upstream, name)
            known = self._loaded.setdefault(key, read)
            if len(self._loaded) > LOADED_MAX:
                gone, _ = self._loaded.popitem(last=False)
                if gone in self._locks and not self._locks[gone].locked():
                    del self._locks[gone]
        self._loaded.move_to_end(key)
        return known

    async def save(self, repository: Repository) -> None:
        """One write at a time for each: the last change is what stays."""
        key = (repository.upstream, repository.name)
        async with self._locks.setdefault(key, asyncio.Lock()):
            self._loaded[key] = repository
            body = msgspec.json.encode(repository)
            await self._disk.run(self._write, self._path(*key), body)

    def _path(self, upstream: str, name: str) -> Path:
        return self._directory / f"{hashlib.sha256(f'{upstream}/{name}'.encode()).hexdigest()}.json"

    def _prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._directory.glob("*.partial"):
            left.unlink(missing_ok=True)

    def _read(self, upstream: str, name: str) -> Repository:
        try:
            found = msgspec.json.decode(self._path(upstream, name).read_bytes(), type=Repository)
        except (FileNotFoundError, msgspec.DecodeError):  # what cannot be read is asked for again
            return Repository(upstream, name)
        return found if (found.upstream, found.name) == (upstream, name) else Repository(upstream, name)

    def _write(self, path: Path, body: bytes) -> None:
        partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
        with partial.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
