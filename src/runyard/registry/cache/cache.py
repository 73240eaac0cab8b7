"""Decides what a request gets: from disk, from a download that runs, or from the upstream; and whether it may at all.

Two kinds of rights, never mixed. A request without a login reads what the cache itself was allowed to, under the
operator's credentials or none; that is kept across restarts and served while the upstream is down. A request with a
login of its own reads what the upstream allows that login, asked again after `rights_s`. Both find the same bytes on
disk, of the same registry; only the way to them is guarded, repository by repository.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from runyard.model.clock import Clock
from runyard.model.errors import (
    RegistryDenied,
    RegistryNotFound,
    RegistryThrottled,
    RegistryUnreachable,
)
from runyard.registry.cache.counters import Counters
from runyard.registry.cache.disk import Disk
from runyard.registry.cache.downloads import Download, Downloads
from runyard.registry.cache.repositories import ManifestEntry, Repositories, Repository
from runyard.registry.cache.rights import Rights
from runyard.registry.cache.settings import CacheSettings, Upstream, Wanted
from runyard.registry.cache.store import BlobKey, BlobStore, StoredBlob, blob_key
from runyard.registry.client import Document, RegistryClient
from runyard.registry.credentials import Credentials, CredentialStore
from runyard.registry.images import media_type_of, parse_document
from runyard.registry.reference import Reference

DOWN_S = 10.0  # where we have something to serve instead, an upstream that failed is not asked again before
T = TypeVar("T")


class RegistryCache:
    """`open` it once, `close` it. Its methods raise RegistryError's classes, and ConfigError where the operator's
    credentials cannot be read."""

    def __init__(
        self,
        settings: CacheSettings,
        *,
        client: RegistryClient,
        clock: Clock,
        counters: Counters | None = None,
    ) -> None:
        self.settings = settings
        self.counters = counters or Counters()
        self._client = client
        self._clock = clock
        self._credentials = CredentialStore(settings.rules)
        self._disk = Disk()
        self._store = BlobStore(
            settings.directory, bytes_max=settings.bytes_max, counters=self.counters, disk=self._disk
        )
        self._downloads = Downloads(self._store, self.counters, self._disk)
        self._repositories = Repositories(settings.directory, self._disk)
        self._rights = Rights(settings.rights_s)
        self._flights: dict[object, asyncio.Task[Any]] = {}
        self._down_until: dict[str, float] = {}

    async def open(self) -> None:
        """Reads what is on disk; asks no upstream. Raises OSError."""
        await self._store.open()
        await self._repositories.open()

    async def close(self) -> None:
        tasks = list(self._flights.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._downloads.close()

    def close_disk(self) -> None:
        """After the last answer."""
        self._disk.close()

    async def manifest(self, wanted: Wanted, login: Credentials | None) -> Document:
        """The manifest or index that a tag or digest names."""
        _check_login(wanted.upstream, login)
        if login is not None:
            return await self._manifest_for_login(wanted, login)
        return await self._single(wanted.reference, lambda: self._manifest_for_cache(wanted))

    @contextlib.asynccontextmanager
    async def blob(self, wanted: Wanted, login: Credentials | None) -> AsyncIterator[StoredBlob | Download]:
        """The blob's bytes, or a download of it that has begun."""
        _check_login(wanted.upstream, login)
        key = blob_key(wanted.upstream.host, wanted.reference.target)
        via = (login, wanted.reference.name)
        credentials = login or await self._own_credentials(wanted.reference)
        is_allowed = False
        if not self._is_new_or_of(key, via):
            await self._check_blob(wanted, login)
            is_allowed = True
        async with self._store.reading(key) as stored:
            if stored is not None:
                self.counters.hits += 1
                yield stored
                return
        if not is_allowed and not self._is_new_or_of(key, via):  # somebody else began it meanwhile
            await self._check_blob(wanted, login)
        async with self._download(wanted.reference, credentials, via).following() as followed:
            # It has begun, so the upstream itself let this login, or us, read it here.
            await self._allow_blob(wanted.reference, login, asked_at=self._clock.boottime())
            yield followed

    async def blob_size(self, wanted: Wanted, login: Credentials | None) -> int | None:
        """The size of a blob that may be read, where it is known."""
        _check_login(wanted.upstream, login)
        stored = self._store.size_of(blob_key(wanted.upstream.host, wanted.reference.target))
        said = await self._check_blob(wanted, login)
        if stored is not None:
            return stored
        return said if said is not None else await self._head_blob(wanted, login)

    # --- under the cache's own credentials --------------------------------------------------------------------

    async def _manifest_for_cache(self, wanted: Wanted) -> Document:
        reference = wanted.reference
        repository = await self._repositories.get(wanted.upstream.host, reference.repository)
        stored, age_s = await self._stored(repository, reference)
        if stored is not None and 0 <= age_s < self.settings.tag_ttl_s:
            self.counters.hits += 1
            return stored
        try:
            if stored is not None:
                self._check_up(wanted.upstream)
            return await self._refresh(wanted, repository, stored)
        except (RegistryDenied, RegistryNotFound) as error:
            await self._revoke(repository, reference, is_all=isinstance(error, RegistryDenied))
            raise
        except (RegistryUnreachable, RegistryThrottled):
            if stored is None or age_s >= self.settings.stale_s:
                raise
            self.counters.stale += 1
            return stored

    async def _refresh(self, wanted: Wanted, repository: Repository, stored: Document | None) -> Document:
        """Asks the upstream what the name is now; reads it only where it is another."""
        reference, now = wanted.reference, self._clock.now()
        credentials = await self._own_credentials(reference)
        document = stored
        if document is not None:
            digest = await self._ask(
                wanted.upstream, lambda: self._client.head(reference, credentials=credentials)
            )
            document = document if digest == document.digest else None
        if document is None:
            self.counters.misses += 1
            document = await self._fetch(wanted, credentials)
        else:
            self.counters.hits += 1
        repository.add_manifest(document.digest, ManifestEntry(document.media_type, now), tag=reference.tag)
        await self._repositories.save(repository)
        return document

    async def _stored(self, repository: Repository, reference: Reference) -> tuple[Document | None, float]:
        """What we have under a name, and how long ago the upstream said so."""
        tag = repository.tags.get(reference.tag or "")
        digest = tag.digest if tag is not None else reference.digest
        entry = repository.manifests.get(digest or "")
        if digest is None or entry is None:
            return None, 0.0
        body = await self._store.read(blob_key(reference.host, digest))
        age_s = self._clock.now() - (tag or entry).checked_at
        return (Document(body, entry.media_type, digest) if body is not None else None), age_s

    async def _revoke(self, repository: Repository, reference: Reference, *, is_all: bool) -> None:
        """The upstream says no: what rested on its former yes goes."""
        if is_all:
            repository.forget()
        elif reference.tag is not None:
            repository.tags.pop(reference.tag, None)
        else:
            repository.manifests.pop(reference.target, None)
        await self._repositories.save(repository)

    # --- under a request's own login --------------------------------------------------------------------------

    async def _manifest_for_login(self, wanted: Wanted, login: Credentials) -> Document:
        reference, asked_at = wanted.reference, self._clock.boottime()
        digest = self._rights.granted(login, reference, asked_at)
        if digest is None:
            digest = await self._ask(wanted.upstream, lambda: self._client.head(reference, credentials=login))
            self._rights.grant(login, reference, digest, asked_at=asked_at)
        body = await self._store.read(blob_key(reference.host, digest))
        if body is not None:
            self.counters.hits += 1
            media_type = media_type_of(parse_document(body, str(reference)), "")
            return Document(body, media_type, digest)
        self.counters.misses += 1
        return await self._fetch(wanted, login)

    # --- both -------------------------------------------------------------------------------------------------

    async def _check_blob(self, wanted: Wanted, login: Credentials | None) -> int | None:
        """Asks the upstream, unless it said so before, whether this repository has the blob for whoever asks: its own
        rule is the rule. The size where it was asked. Raises RegistryError."""
        reference, asked_at = wanted.reference, self._clock.boottime()
        if login is not None:
            is_known = self._rights.granted(login, reference, asked_at) is not None
        else:
            repository = await self._repositories.get(reference.host, reference.repository)
            age_s = self._clock.now() - repository.blobs.get(reference.target, float("-inf"))
            is_known = 0 <= age_s < self.settings.stale_s
        if is_known:
            return None
        size = await self._head_blob(wanted, login)
        await self._allow_blob(reference, login, asked_at=asked_at)
        return size

    async def _allow_blob(self, reference: Reference, login: Credentials | None, *, asked_at: float) -> None:
        if login is not None:
            self._rights.grant(login, reference, reference.target, asked_at=asked_at)
            return
        repository = await self._repositories.get(reference.host, reference.repository)
        if reference.target not in repository.blobs:
            repository.add_blob(reference.target, self._clock.now())
            await self._repositories.save(repository)

    def _is_new_or_of(self, key: BlobKey, via: object) -> bool:
        """Whether a blob's own GET will tell of rights: nobody has it yet, or the same rights fetch it now."""
        running = self._downloads.running(key)
        return running.via == via if running is not None else self._store.size_of(key) is None

    def _download(self, reference: Reference, credentials: Credentials | None, via: object) -> Download:
        key = blob_key(reference.host, reference.target)
        running = self._downloads.running(key)
        if running is not None:
            self.counters.joined += 1
            return running
        self.counters.misses += 1
        self.counters.upstream_requests += 1
        return self._downloads.start(
            key, lambda: self._client.open_blob(reference, reference.target, credentials=credentials), via=via
        )

    async def _head_blob(self, wanted: Wanted, login: Credentials | None) -> int | None:
        reference = wanted.reference
        credentials = login or await self._own_credentials(reference)
        return await self._ask(
            wanted.upstream,
            lambda: self._client.head_blob(reference, reference.target, credentials=credentials),
        )

    async def _fetch(self, wanted: Wanted, credentials: Credentials | None) -> Document:
        document = await self._ask(
            wanted.upstream, lambda: self._client.manifest(wanted.reference, credentials=credentials)
        )
        self.counters.upstream_bytes += len(document.body)
        await self._store.put(document.body, blob_key(wanted.upstream.host, document.digest))
        return document

    async def _own_credentials(self, reference: Reference) -> Credentials | None:
        return await self._credentials.find(reference.host, reference.repository)

    async def _ask(self, upstream: Upstream, call: Callable[[], Awaitable[T]]) -> T:
        self.counters.upstream_requests += 1
        try:
            return await call()
        except (RegistryUnreachable, RegistryThrottled):
            self._down_until[upstream.host] = self._clock.boottime() + DOWN_S
            raise
        except RegistryDenied:
            self.counters.denied += 1
            raise

    def _check_up(self, upstream: Upstream) -> None:
        """Raises RegistryUnreachable where the upstream failed a moment ago."""
        until = self._down_until.get(upstream.host)
        if until is not None and self._clock.boottime() < until:
            raise RegistryUnreachable(f"{upstream.host} did not answer a moment ago")

    async def _single(self, key: object, call: Callable[[], Awaitable[T]]) -> T:
        """One call at a time for each key; who comes meanwhile gets its answer, and may go without ending it."""
        task = self._flights.get(key)
        if task is None:
            task = self._flights[key] = asyncio.ensure_future(call())
            task.add_done_callback(lambda done: self._end_flight(key, done))
        try:
            answer: T = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise RegistryUnreachable("the registry cache is being stopped") from None
            raise
        return answer

    def _end_flight(self, key: object, task: asyncio.Task[Any]) -> None:
        del self._flights[key]
        if not task.cancelled():
            task.exception()  # looked at, also where everybody left


def _check_login(upstream: Upstream, login: Credentials | None) -> None:
    if upstream.needs_login and login is None:
        raise RegistryDenied(
            f"{upstream.name} is served to logins of its own only", cure="log in to the cache"
        )
