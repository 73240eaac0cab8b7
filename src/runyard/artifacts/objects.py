"""Artifacts in an object store: collected here, sent there before the attempt is settled, served from there.

    <uid>/<number>/<sha256 of the content>      a file
    <uid>/<number>/manifest.json                which path has which content; put last

So a file is sent once however often that is tried, an attempt that names artifacts has all of them, and what is read
whole is checked against its digest. What could not be sent in time is served from here and sent later.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import os
import shutil
import stat
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from runyard.artifacts import manifest
from runyard.artifacts.files import SENT_SUFFIX, FileArtifactStore, open_parts
from runyard.artifacts.manifest import StoredFile
from runyard.artifacts.port import ARTIFACTS_MAX, Artifact, ArtifactSink, OpenArtifact
from runyard.key_locks import KeyLocks
from runyard.model.attempt import AttemptKey
from runyard.model.errors import StoreUnavailable
from runyard.object_store import ObjectMissing, ObjectStore

FILE_BYTES_MAX = 50 << 30  # holes included: a job can make a file of any length that takes no disk
READ_BYTES = 4 << 20
SEND_BYTES = 1 << 20
SENT_AT_A_TIME = 4
MANIFESTS_MAX = 256
MANIFEST = "manifest.json"

log = structlog.get_logger()


class ObjectArtifactStore:
    """`local` is where collectors on this host leave files. `send` moves those of one attempt to the store."""

    def __init__(self, local: FileArtifactStore, objects: ObjectStore) -> None:
        self.local = local
        self._objects = objects
        self._manifests: OrderedDict[AttemptKey, list[StoredFile]] = OrderedDict()
        self._sending = asyncio.Semaphore(SENT_AT_A_TIME)
        self._locks = KeyLocks()

    def sink(self, key: AttemptKey) -> ArtifactSink:
        """Into the folder here: what arrived from afar is sent with the rest, before the settle."""
        return self.local.sink(key)

    def directory(self, key: AttemptKey) -> Path:
        return self.local.directory(key)

    async def list(self, key: AttemptKey) -> builtins.list[Artifact]:
        here = await self.local.list(key)
        there = [each.artifact for each in await self._manifest(key, is_here=bool(here))]
        both = {each.path: each for each in (*there, *here)}
        return [both[path] for path in sorted(both)][:ARTIFACTS_MAX]

    async def open(self, key: AttemptKey, path: str) -> OpenArtifact | None:
        here = await self.local.open(key, path)
        if here is not None:
            return here
        file = manifest.find(await self._manifest(key), path)
        return None if file is None else OpenObject(self._objects, _object(key, file.sha256), file)

    async def send(self, key: AttemptKey) -> None:
        """Sends what was collected here; then it is there and no longer here. Repeating it goes on where it was.
        Raises StoreUnavailable; nothing is lost by that."""
        async with self._locks.hold(key):
            if await asyncio.to_thread(self.directory(key).is_dir):
                await self._send(key)

    async def _send(self, key: AttemptKey) -> None:
        directory = self.directory(key)
        paths = await asyncio.to_thread(lambda: builtins.list(_regular_files(directory)))
        sizes = {each.path: each.size for each in await self._objects.list(_folder(key))}
        sendings = (self._send_file(key, path, sizes) for path in paths)
        results = await asyncio.gather(*sendings, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        sent = [result for result in results if isinstance(result, StoredFile)]
        known = manifest.merged(await self._read_manifest(key), sent)
        if known:
            await self._objects.put(_object(key, MANIFEST), manifest.to_json(known))
            await self._check_arrived(key, known)
            self._keep(key, known)
        await asyncio.to_thread(_remove, directory)
        log.info("artifacts_sent", attempt=key.resource_name, files=len(sent))

    async def _send_file(self, key: AttemptKey, path: bytes, sizes: dict[str, int]) -> StoredFile | None:
        async with self._sending:
            fd = await asyncio.to_thread(open_parts, self.directory(key), path.split(b"/"))
            if fd is None:
                return None
            try:
                size = os.fstat(fd).st_size
                if size > FILE_BYTES_MAX:
                    log.error("artifact_too_long", attempt=key.resource_name, bytes=size)
                    return None
                file = StoredFile(path=path, size=size, sha256=await asyncio.to_thread(_digest, fd))
                name = _object(key, file.sha256)
                if sizes.get(name) != size:
                    sizes[name] = (
                        size  # for an equal one beside it; should this one fail, all are looked at again
                    )
                    await self._objects.put(name, await _content(fd, size))
                return file
            finally:
                os.close(fd)

    async def _check_arrived(self, key: AttemptKey, files: builtins.list[StoredFile]) -> None:
        """S3 verified each part's checksum as it came; that all parts are there is seen here."""
        sizes = {each.path: each.size for each in await self._objects.list(_folder(key))}
        for file in files:
            if sizes.get(_object(key, file.sha256)) != file.size:
                raise StoreUnavailable(
                    f"object store {self._objects.name}: {_object(key, file.sha256)} is not as it was sent",
                    cure="it is sent again; if it goes on, the store loses what it is given",
                )

    async def _manifest(self, key: AttemptKey, *, is_here: bool = False) -> builtins.list[StoredFile]:
        if (kept := self._manifests.get(key)) is not None:
            return kept
        try:
            files = await self._read_manifest(key)
        except StoreUnavailable:
            if is_here:
                return []  # not sent yet, most likely because of that
            raise
        if files:
            self._keep(key, files)
        return files

    async def _read_manifest(self, key: AttemptKey) -> builtins.list[StoredFile]:
        try:
            return manifest.parse(await self._objects.get(_object(key, MANIFEST)))
        except ObjectMissing:
            return []
        except ValueError as error:
            raise StoreUnavailable(
                f"object store {self._objects.name}: {_object(key, MANIFEST)}: {error}"
            ) from None

    def _keep(self, key: AttemptKey, files: builtins.list[StoredFile]) -> None:
        self._manifests[key] = files
        if len(self._manifests) > MANIFESTS_MAX:
            self._manifests.popitem(last=False)

    async def delete(self, key: AttemptKey) -> None:
        async with self._locks.hold(key):
            await self.local.delete(key)
            await self._delete_there(_folder(key))
            self._manifests.pop(key, None)

    async def delete_job(self, uid: str) -> None:
        for key in [key for key in self.local.attempts() if key.uid == uid]:
            await self.delete(key)
        await self.local.delete_job(uid)
        await self._delete_there(uid)
        for key in [key for key in self._manifests if key.uid == uid]:
            del self._manifests[key]

    async def _delete_there(self, folder: str) -> None:
        """The manifest first: without it nothing is there."""
        paths = [each.path for each in await self._objects.list(folder)]
        await self._objects.delete(sorted(paths, key=lambda path: not path.endswith(MANIFEST)))

    async def size_bytes(self) -> int:
        return await self._objects.size_bytes() + await self.local.size_bytes()


@dataclass(slots=True)
class _Block:
    begin: int
    data: bytes


class OpenObject:
    """A file in the store. Read from its beginning to its end it is checked against its digest; a wrong one never
    gets its last bytes. One that is deleted meanwhile ends with StoreUnavailable."""

    def __init__(self, objects: ObjectStore, name: str, file: StoredFile) -> None:
        self._objects = objects
        self._name = name
        self._file = file
        self._block = _Block(0, b"")
        self._hash = hashlib.sha256()
        self._hashed = 0

    @property
    def size(self) -> int:
        return self._file.size

    async def read(self, offset: int, limit: int) -> bytes:
        if offset >= self.size or limit <= 0:
            return b""
        block = self._block
        if not block.begin <= offset < block.begin + len(block.data):
            block = self._block = await self._fetch(offset)
        within = offset - block.begin
        return block.data[within : within + limit]

    async def _fetch(self, begin: int) -> _Block:
        end = min(self.size, begin + READ_BYTES)
        try:
            data = await self._objects.get_range(self._name, begin, end)
        except ObjectMissing:
            raise StoreUnavailable(f"object store {self._objects.name}: {self._name} is gone") from None
        if begin == self._hashed:
            await asyncio.to_thread(self._hash.update, data)
            self._hashed += len(data)
            if self._hashed == self.size and self._hash.hexdigest() != self._file.sha256:
                self._hash, self._hashed = hashlib.sha256(), 0
                raise StoreUnavailable(
                    f"object store {self._objects.name}: {self._name} is not what was stored",
                    cure="the object was changed or damaged there; run the job again",
                )
        return _Block(begin, data)

    def close(self) -> None:
        self._block = _Block(0, b"")


def _folder(key: AttemptKey) -> str:
    return f"{key.uid}/{key.number}"


def _object(key: AttemptKey, name: str) -> str:
    return f"{_folder(key)}/{name}"


def _regular_files(directory: Path) -> Iterator[bytes]:
    """Paths relative to the directory; links are neither followed nor told."""
    root = os.fsencode(directory)
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode) and count < ARTIFACTS_MAX:
                count += 1
                yield os.path.relpath(path, root)


def _digest(fd: int) -> str:
    digest, offset = hashlib.sha256(), 0
    while data := os.pread(fd, SEND_BYTES, offset):
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()


async def _content(fd: int, size: int) -> bytes | AsyncIterator[bytes]:
    """A small file at once, a large one piece by piece."""
    if size <= SEND_BYTES:
        return await asyncio.to_thread(os.pread, fd, size, 0)
    return _pieces(fd)


async def _pieces(fd: int) -> AsyncIterator[bytes]:
    offset = 0
    while data := await asyncio.to_thread(os.pread, fd, SEND_BYTES, offset):
        yield data
        offset += len(data)


def _remove(directory: Path) -> None:
    """Out of sight at once: half of it must not be taken for all."""
    aside = directory.with_name(f".{directory.name}{SENT_SUFFIX}")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(directory, aside)
    shutil.rmtree(aside, ignore_errors=True)
