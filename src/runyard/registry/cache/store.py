"""The verified bytes on disk: one file for each registry and digest, bounded, the least recently used gone first.

Each registry has files of its own: one that lies about what it has must not open what another gave us.

A file gets its final name only when its digest was proven and its bytes are on the disk, so whatever carries one is
whole; what a crash leaves in `partial` is removed at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runyard.model.errors import ImageUnsupported
from runyard.registry.cache.counters import Counters
from runyard.registry.cache.disk import Disk
from runyard.registry.reference import is_digest

PIECE_BYTES = 256 * 1024  # what one client keeps in memory, however slow it is
_TOUCHED_EVERY_S = 3600.0


class BlobKey(NamedTuple):
    """`space` stands for a registry's host."""

    space: str
    digest: str


def blob_key(host: str, digest: str) -> BlobKey:
    return BlobKey(hashlib.sha256(host.encode()).hexdigest()[:16], digest)


@dataclass(slots=True)
class _Entry:
    size: int
    touched_at: float
    readers: int = 0


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A whole blob, open."""

    size: int
    fd: int
    disk: Disk

    async def pieces(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end` (None: all)."""
        stop = self.size if end is None else end
        while start < stop:
            piece = await self.disk.run(os.pread, self.fd, min(PIECE_BYTES, stop - start), start)
            if not piece:
                raise OSError(0, "a stored blob is shorter than it was")
            start += len(piece)
            yield piece


class BlobStore:
    """Its methods run on the loop and go to a thread for the disk; `open` is called once, before the rest."""

    def __init__(self, directory: Path, *, bytes_max: int, counters: Counters, disk: Disk) -> None:
        self._disk = disk
        self._blobs = directory / "blobs"
        self._partial = directory / "partial"
        self._bytes_max = bytes_max
        self._counters = counters
        self._entries: OrderedDict[BlobKey, _Entry] = OrderedDict()  # the longest unused first
        self._incoming = 0

    async def open(self) -> None:
        """Takes in what is there. Raises OSError where the folder cannot be used."""
        found = await self._disk.run(self._scan)
        for key, entry in found:
            self._enter(key, entry)
        await self._evict()

    def size_of(self, key: BlobKey) -> int | None:
        entry = self._entries.get(key)
        return entry.size if entry is not None else None

    @contextlib.asynccontextmanager
    async def reading(self, key: BlobKey) -> AsyncIterator[StoredBlob | None]:
        """The blob, which is not evicted meanwhile; None where it is not there."""
        entry = self._entries.get(key)
        if entry is None:
            yield None
            return
        self._entries.move_to_end(key)
        entry.readers += 1
        fd = -1
        try:
            fd = await self._disk.run(self._open, key, entry)
            yield StoredBlob(entry.size, fd, self._disk) if fd >= 0 else None
        finally:
            entry.readers -= 1
            if fd >= 0:
                os.close(fd)
            elif self._entries.get(key) is entry:  # somebody else removed the file
                self._drop(key)

    async def read(self, key: BlobKey) -> bytes | None:
        """A small one, whole."""
        async with self.reading(key) as blob:
            if blob is None:
                return None
            return b"".join([piece async for piece in blob.pieces(0, blob.size)])

    def new_partial(self) -> Path:
        return self._partial / uuid.uuid4().hex

    def check_fits(self, size: int) -> None:
        """Raises ImageUnsupported for what is larger than all of the room."""
        if size > self._bytes_max:
            raise ImageUnsupported(
                f"a blob of {size} bytes is larger than the registry cache ({self._bytes_max} bytes)",
                cure="raise registry_cache.bytes_max, or pull it from its registry",
            )

    async def reserve(self, size: int) -> None:
        """Makes room for what comes; `release` gives the room back."""
        self._incoming += size
        await self._evict()

    def release(self, size: int) -> None:
        self._incoming -= size

    async def keep(self, partial: Path, key: BlobKey, size: int) -> None:
        """Takes over a file whose digest is proven."""
        await self._disk.run(self._publish, partial, key)
        known = self._entries.get(key)
        self._enter(key, _Entry(size, time.time(), known.readers if known else 0))
        await self._evict()

    async def put(self, body: bytes, key: BlobKey) -> None:
        """A small one, whole, whose digest is proven."""
        if key in self._entries:
            return
        partial = self.new_partial()
        await self._disk.run(partial.write_bytes, body)
        await self.keep(partial, key, len(body))

    async def _evict(self) -> None:
        gone: list[BlobKey] = []
        if self._counters.stored_bytes + self._incoming > self._bytes_max:
            for key, entry in list(self._entries.items()):
                if entry.readers == 0:
                    self._drop(key)
                    gone.append(key)
                if self._counters.stored_bytes + self._incoming <= self._bytes_max:
                    break
        if gone:
            self._counters.evictions += len(gone)
            await self._disk.run(self._remove, gone)

    def _enter(self, key: BlobKey, entry: _Entry) -> None:
        self._drop(key)
        self._entries[key] = entry
        self._counters.stored_blobs += 1
        self._counters.stored_bytes += entry.size

    def _drop(self, key: BlobKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._counters.stored_blobs -= 1
            self._counters.stored_bytes -= entry.size

    def _path(self, key: BlobKey) -> Path:
        value = key.digest.removeprefix("sha256:")
        return self._blobs / key.space / value[:2] / value

    def _scan(self) -> list[tuple[BlobKey, _Entry]]:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True, mode=0o700)
        self._blobs.mkdir(exist_ok=True, mode=0o700)
        found = []
        for path in self._blobs.glob("*/??/*"):
            key = BlobKey(path.parts[-3], f"sha256:{path.name}")
            if is_digest(key.digest):
                seen = path.stat()
                found.append((key, _Entry(seen.st_size, seen.st_mtime)))
        return sorted(found, key=lambda row: row[1].touched_at)

    def _open(self, key: BlobKey, entry: _Entry) -> int:
        """The file, marked as used now and then, so that a restart knows the order. -1 where it is not as it was."""
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        if os.fstat(fd).st_size != entry.size:
            os.close(fd)
            return -1
        now = time.time()
        if abs(now - entry.touched_at) > _TOUCHED_EVERY_S:
            entry.touched_at = now
            os.utime(fd)
        return fd

    def _publish(self, partial: Path, key: BlobKey) -> None:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.rename(path)

    def _remove(self, keys: list[BlobKey]) -> None:
        for key in keys:
            if key not in self._entries:  # or it came again meanwhile
                self._path(key).unlink(missing_ok=True)
