"""Logs in an object store: what is written here is served from here, everything else from what was shipped.

A log is written to files on the host that runs the attempt (logs/files.py) and shipped piece by piece
(logs/shipping.py); once all of it is there and the attempt is settled, the files go. So any service on the same ledger
serves any log: the one that runs the attempt at once, the others about a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import structlog

from runyard.key_locks import KeyLocks
from runyard.logs import pieces
from runyard.logs.files import FileLogStore, poke_when_set
from runyard.logs.piece_reader import LISTING_FRESH_S, PieceReader
from runyard.logs.pieces import StoredLog
from runyard.logs.port import CHUNK_BYTES_MAX, Chunk, Gap, LogSink, Positions, StreamInfo
from runyard.logs.watching import Watch
from runyard.model.attempt import AttemptKey
from runyard.model.errors import StoreUnavailable
from runyard.object_store import ObjectStore

LOOK_EVERY_S = 1.0
LAST_WORDS_S = 15.0
"""How long a follower waits, after an attempt's end, for what its service has not shipped yet."""

FROM_AFAR = "from-afar"
"""Marks files that a sink writes: another service may go on with such an attempt, and what is here is then a part."""

log = structlog.get_logger()


class ObjectLogStore:
    """`local` holds what is being written on this host, and what is not shipped yet. `locks`: who ships or deletes an
    attempt's log holds its lock."""

    def __init__(
        self,
        local: FileLogStore,
        objects: ObjectStore,
        *,
        look_every_s: float = LOOK_EVERY_S,
        last_words_s: float = LAST_WORDS_S,
    ) -> None:
        self.local = local
        self.objects = objects
        self.reader = PieceReader(objects, fresh_s=min(LISTING_FRESH_S, look_every_s / 2))
        self.locks = KeyLocks()
        self._look_every_s = look_every_s
        self._last_words_s = last_words_s

    def close(self) -> None:
        self.local.close()

    def sink(self, key: AttemptKey) -> LogSink:
        return _ContinuedSink(self, key)

    def directory(self, key: AttemptKey) -> Path:
        return self.local.directory(key)

    async def streams(self, key: AttemptKey) -> list[StreamInfo]:
        if self.local.is_here(key):
            return await self.local.streams(key)
        return (await self.reader.look(key)).infos()

    async def read(self, key: AttemptKey, step: str, stream: str, offset: int, limit: int) -> bytes:
        if self.local.is_here(key):
            data = await self.local.read(key, step, stream, offset, limit)
            if data or self.local.is_here(key):
                return data
        return await self.reader.read(key, step, stream, offset, min(limit, CHUNK_BYTES_MAX))

    async def follow(
        self, key: AttemptKey, positions: Positions, ended: asyncio.Event
    ) -> AsyncIterator[Chunk | Gap]:
        at = dict(positions)
        while True:
            is_here = self.local.is_here(key)
            source = self._follow_here(key, at, ended) if is_here else self._follow_there(key, at, ended)
            async with contextlib.aclosing(source) as items:
                async for item in items:
                    at[item.step, item.stream] = position_after(item)
                    yield item
            if ended.is_set() and is_here == self.local.is_here(key):
                return

    async def _follow_here(
        self, key: AttemptKey, at: dict[tuple[str, str], int], ended: asyncio.Event
    ) -> AsyncGenerator[Chunk | Gap, None]:
        """Until the end, or until the files were shipped and are gone."""
        async with contextlib.aclosing(self.local.follow(key, dict(at), ended)) as items:
            async for item in items:
                is_gone = isinstance(item, Gap) and item.offset < at.get((item.step, item.stream), 0)
                if is_gone and not self.local.is_here(key):
                    return
                yield item

    async def _follow_there(
        self, key: AttemptKey, at: dict[tuple[str, str], int], ended: asyncio.Event
    ) -> AsyncGenerator[Chunk | Gap, None]:
        """Until the end, or until files of it appear here: then the attempt runs on this host. A store that cannot be
        reached is waited for while the attempt goes on."""
        now, waits_until = asyncio.get_running_loop().time, float("inf")
        watch = self.local.watch(key)
        end_watcher = asyncio.create_task(poke_when_set(ended, watch.poke))
        try:
            while True:
                watch.arm()
                if ended.is_set() and waits_until == float("inf"):
                    waits_until = now() + self._last_words_s
                is_last_look = now() >= waits_until
                stored = await self._look_there(key, watch, must_answer=is_last_look)
                if self.local.is_here(key):
                    return
                if stored is not None:
                    async for item in self._beyond(key, stored, at):
                        yield item
                    if ended.is_set() and (stored.is_complete or is_last_look):
                        return
                await watch.wait(self._look_every_s)
        finally:
            end_watcher.cancel()
            watch.close()

    async def _look_there(self, key: AttemptKey, watch: Watch, *, must_answer: bool) -> StoredLog | None:
        """None where the store cannot be reached, or files appeared here meanwhile: those do not wait for it."""
        look = asyncio.create_task(self.reader.look(key))
        try:
            while not look.done():
                woken = asyncio.create_task(watch.wait(self._look_every_s))
                await asyncio.wait({look, woken}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                if self.local.is_here(key):
                    return None
                watch.arm()
            return look.result()
        except StoreUnavailable as error:
            if must_answer:
                raise
            log.warning("object_store_unavailable", attempt=key.resource_name, error=error.message)
            return None
        finally:
            look.cancel()

    async def _beyond(
        self, key: AttemptKey, stored: StoredLog, at: dict[tuple[str, str], int]
    ) -> AsyncIterator[Chunk | Gap]:
        """All that lies there beyond the positions."""
        for (step, stream), there in stored.streams.items():
            info, offset = there.info, at.get((step, stream), 0)
            while offset < info.size:
                hole = info.hole_at(offset)
                if hole is not None:
                    yield Gap(step=step, stream=stream, offset=offset, to=hole.end, is_cut=hole.is_cut)
                    offset = hole.end
                    continue
                data = await self.reader.read(key, step, stream, offset, CHUNK_BYTES_MAX)
                if not data:
                    return  # it changed meanwhile: the next look tells
                yield Chunk(step=step, stream=stream, offset=offset, data=data)
                offset += len(data)

    async def delete(self, key: AttemptKey) -> None:
        async with self.locks.hold(key):
            await self.local.delete(key)
            await self._delete_there(pieces.folder(key))
            self.reader.forget(key)

    async def delete_job(self, uid: str) -> None:
        for key in [key for key in self.local.attempts() if key.uid == uid]:
            await self.delete(key)
        await self.local.delete_job(uid)
        await self._delete_there(uid)
        self.reader.forget_job(uid)

    async def _delete_there(self, folder: str) -> None:
        await self.objects.delete([each.path for each in await self.objects.list(folder)])

    async def size_bytes(self) -> int:
        """What lies in the store; what is not shipped yet counts once it is."""
        return await self.objects.size_bytes()


class _ContinuedSink:
    """A sink that first brings here what another service shipped of the same attempt: it is continued, not begun."""

    def __init__(self, store: ObjectLogStore, key: AttemptKey) -> None:
        self._store = store
        self._key = key
        self._files: LogSink | None = None

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        await (await self._continued()).append(step, stream, offset, data)

    async def size(self, step: str, stream: str) -> int:
        await self._continued()
        infos = await self._store.streams(self._key)
        return next((info.size for info in infos if (info.step, info.stream) == (step, stream)), 0)

    async def _continued(self) -> LogSink:
        if self._files is not None:
            return self._files
        async with self._store.locks.hold(self._key):
            if not self._store.local.is_here(self._key):
                await self._bring()
            files = self._store.local.sink(self._key)  # which makes the folder
            (self._store.local.directory(self._key) / FROM_AFAR).touch()
        self._files = files
        return files

    async def _bring(self) -> None:
        """Into a folder beside, which then takes its place: half a log would be taken for the whole."""
        stored = await self._store.reader.look(self._key)
        if not stored.streams:
            return
        with self._store.local.arriving(self._key) as sink:
            async for item in self._store._beyond(self._key, stored, {}):
                if isinstance(item, Chunk):
                    await sink.append(item.step, item.stream, item.offset, item.data)


def position_after(item: Chunk | Gap) -> int:
    return item.to if isinstance(item, Gap) else item.offset + len(item.data)
