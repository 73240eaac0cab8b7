"""Single flight: one download for each registry and digest, and any number of followers that read its growing file.

A download belongs to nobody: whoever asked first may go, the others read on. Followers get all but the last byte while
it runs, and the last one when the digest is proven; where it is not, they are torn off and nothing is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import structlog

from runyard.model.errors import RegistryCorrupt, RegistryError, RegistryUnreachable
from runyard.registry.blob_stream import BlobStream
from runyard.registry.cache.counters import Counters
from runyard.registry.cache.disk import Disk
from runyard.registry.cache.store import PIECE_BYTES, BlobKey, BlobStore

OpenBlob: TypeAlias = Callable[[], AbstractAsyncContextManager[BlobStream]]

log = structlog.get_logger()


class Download:
    """One blob on its way. `size` is None where the upstream did not say it; `via` is whose rights and which
    repository it was begun with."""

    def __init__(self, partial: Path, via: object, disk: Disk) -> None:
        self._disk = disk
        self.size: int | None = None
        self.via = via
        self._partial = partial
        self._fd = -1
        self._written = 0
        self._is_open = False
        self._is_proven = False
        self._error: RegistryError | None = None
        self._followers = 0
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[Download]:
        """Waits until bytes come. Raises RegistryError where there will be none."""
        self._followers += 1
        try:
            while not self._is_open and not self._is_ended:
                await self._changed.wait()
            if self._error is not None:
                raise self._error
            yield self
        finally:
            self._followers -= 1
            self._close_if_unused()

    async def pieces(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end` (None: all), as they come. Raises RegistryError where they fail."""
        while end is None or start < end:
            readable = self._written if self._is_proven else max(self._written - 1, 0)
            stop = readable if end is None else min(readable, end)
            if start < stop:
                piece = await self._disk.run(os.pread, self._fd, min(PIECE_BYTES, stop - start), start)
                start += len(piece)
                yield piece
            elif self._error is not None:
                raise self._error
            elif self._is_proven:
                return
            else:
                await self._changed.wait()

    async def run(self, open_blob: OpenBlob, key: BlobKey, store: BlobStore, counters: Counters) -> None:
        """To its end. Fails for the followers, never for whoever started it."""
        reserved = 0
        try:
            async with open_blob() as blob:
                reserved = blob.size or 0
                store.check_fits(reserved)
                await store.reserve(reserved)
                await self._begin(blob.size)
                await self._take(blob, counters)
            store.release(reserved)
            reserved = 0
            await store.keep(self._partial, key, self._written)
            self._is_proven = True
        except RegistryError as error:
            counters.corrupt += isinstance(error, RegistryCorrupt)
            self._fail(error)
        except OSError as error:
            log.error("registry_cache_disk_failed", digest=key.digest, error=error.strerror)
            self._fail(RegistryUnreachable(f"the registry cache cannot write {key.digest}: {error.strerror}"))
        except asyncio.CancelledError:
            self._fail(RegistryUnreachable("the registry cache is being stopped"))
            raise
        finally:
            store.release(reserved)
            if not self._is_ended:  # a fault of ours: whoever waits must not wait for ever
                self._fail(RegistryUnreachable(f"the registry cache failed at {key.digest}"))
            if not self._is_proven:
                await self._disk.run(lambda: self._partial.unlink(missing_ok=True))
            self._notify()
            self._close_if_unused()

    async def _begin(self, size: int | None) -> None:
        self._fd = await self._disk.run(
            os.open, self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        self.size = size
        self._is_open = True
        self._notify()

    async def _take(self, blob: BlobStream, counters: Counters) -> None:
        """Writes what comes, in pieces worth a thread's while. Raises RegistryCorrupt at the end."""
        kept: list[bytes] = []
        count = 0
        async for piece in blob:
            counters.upstream_bytes += len(piece)
            kept.append(piece)
            count += len(piece)
            if count >= PIECE_BYTES:
                await self._write(b"".join(kept))
                kept, count = [], 0
        await self._write(b"".join(kept))

    async def _write(self, body: bytes) -> None:
        writing = asyncio.ensure_future(self._disk.run(_write_all, self._fd, body, self._written))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await (
                writing
            )  # or the file would be closed, and its number another's, while a thread still writes to it
            raise
        self._written += len(body)
        self._notify()

    @property
    def _is_ended(self) -> bool:
        return self._is_proven or self._error is not None

    def _fail(self, error: RegistryError) -> None:
        self._error = error

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _close_if_unused(self) -> None:
        if self._is_ended and self._followers == 0 and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Downloads:
    """All that run."""

    def __init__(self, store: BlobStore, counters: Counters, disk: Disk) -> None:
        self._disk = disk
        self._store = store
        self._counters = counters
        self._running: dict[BlobKey, Download] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def running(self, key: BlobKey) -> Download | None:
        return self._running.get(key)

    def start(self, key: BlobKey, open_blob: OpenBlob, *, via: object) -> Download:
        download = self._running[key] = Download(self._store.new_partial(), via, self._disk)
        task = asyncio.create_task(self._run(download, key, open_blob))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return download

    async def close(self) -> None:
        """Ends what runs; its followers are torn off."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, download: Download, key: BlobKey, open_blob: OpenBlob) -> None:
        try:
            await download.run(open_blob, key, self._store, self._counters)
        finally:
            del self._running[key]


def _write_all(fd: int, body: bytes, offset: int) -> None:
    view = memoryview(body)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
