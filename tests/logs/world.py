"""A log as it is written on one host, and read from the store that a test asks for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from obstore.store import MemoryStore

from runyard.logs.files import FileLogStore
from runyard.logs.layout import write_cut
from runyard.logs.objects import ObjectLogStore
from runyard.logs.port import Chunk, Gap, LogStore
from runyard.logs.shipping import LogShipper
from runyard.model.attempt import AttemptKey
from runyard.object_store import ObjectStore

KEY = AttemptKey("a" * 16, 1)
SOON_S = 0.002


def memory_store() -> ObjectStore:
    return ObjectStore(MemoryStore(), "memory")


class Service:
    """One service on an object store: its own files, its store, its shipper. `settled` are the attempts that
    ended, `deleted` those that the ledger does not know any more."""

    def __init__(self, folder: Path, objects: ObjectStore, settled: set[AttemptKey], **options) -> None:
        self.files = FileLogStore(folder)
        self.store = ObjectLogStore(self.files, objects, look_every_s=SOON_S, **options)
        self.settled = settled
        self.deleted: set[AttemptKey] = set()
        self.shipper = self.new_shipper()

    def new_shipper(self) -> LogShipper:
        """As after a restart: it remembers nothing."""
        return LogShipper(self.store, self._is_settled, look_every_s=SOON_S, replace_after_s=0.0)

    async def _is_settled(self, key: AttemptKey) -> bool | None:
        return None if key in self.deleted else key in self.settled

    async def ship_all(self, key: AttemptKey = KEY) -> None:
        """Until all of an attempt that ended is there and nothing here."""
        async with asyncio.timeout(20):
            while self.files.is_here(key):
                await self.shipper.look()


class LogWorld:
    """`reader` is the store under test; `writer` the files of the host that runs the attempt."""

    def __init__(self, writer: FileLogStore, reader: LogStore, service: Service | None = None) -> None:
        self.writer = writer
        self.reader = reader
        self.service = service

    def write(self, data: bytes, step: str = "000", stream: str = "stdout", key: AttemptKey = KEY) -> Path:
        file = self.writer.directory(key) / f"{step}.{stream}"
        with file.open("ab") as opened:
            opened.write(data)
        return file

    def cut(self, begin: int, end: int, step: str = "000", stream: str = "stdout") -> None:
        write_cut(self.writer.directory(KEY) / f"{step}.{stream}", begin, end)

    async def shown(self, key: AttemptKey = KEY) -> None:
        """Everything written so far can be read."""
        if self.service is not None:
            await self.service.shipper.look()
        if isinstance(self.reader, ObjectLogStore):
            self.reader.reader.forget(key)

    async def end(self, key: AttemptKey = KEY) -> None:
        """The attempt is settled, and everything went its way."""
        if self.service is not None and self.service.files.is_here(key):
            self.service.settled.add(key)
            await self.service.ship_all(key)
        if isinstance(self.reader, ObjectLogStore):
            self.reader.reader.forget(key)

    async def collect(self, ended: asyncio.Event, positions=None, key: AttemptKey = KEY) -> list[Chunk | Gap]:
        return [item async for item in self.reader.follow(key, positions or {}, ended)]


@contextlib.asynccontextmanager
async def file_world(folder: Path) -> AsyncIterator[LogWorld]:
    store = FileLogStore(folder / "logs")
    yield LogWorld(store, store)
    store.close()


@contextlib.asynccontextmanager
async def object_world(folder: Path, objects: ObjectStore, *, elsewhere: bool) -> AsyncIterator[LogWorld]:
    """Read where it is written, or by another service; shipping goes on all the while."""
    settled: set[AttemptKey] = set()
    here = Service(folder / "here", objects, settled, last_words_s=0.2)
    there = Service(folder / "there", objects, settled, last_words_s=0.2)
    shipping = asyncio.create_task(here.shipper.run())
    try:
        yield LogWorld(here.files, there.store if elsewhere else here.store, here)
    finally:
        shipping.cancel()
        await asyncio.gather(shipping, return_exceptions=True)
        here.store.close()
        there.store.close()


def is_set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
