"""An object store behind the few verbs that Runyard needs: S3, Google Cloud Storage, Azure, or a folder.

obstore does the work: retries with backoff, multipart uploads, signing. Here are the bounds (calls at a time, seconds)
and the words for what goes wrong, which hold no credentials.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from runyard.model.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Backend

CALLS_MAX = 16
REQUEST_TIMEOUT_S = 30
RETRIES_MAX = 3
RETRY_S = 10.0
PART_BYTES = 8 << 20
PARTS_AT_A_TIME = 2
DELETE_BATCH = 500
_SCHEMES = ("s3", "gs", "az", "azure", "abfs", "abfss", "file")
_REFUSED = re.compile(r"status code: (401|403)\b")  # listing and deleting have no error of their own for it
_S3_DEFAULTS = {"aws_checksum_algorithm": "sha256"}  # the store verifies each part as it comes


class ObjectMissing(Exception):
    """There is no such object."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """`path` is relative to the store's prefix."""

    path: str
    size: int


class ObjectStore:
    """Every call raises StoreUnavailable where the store cannot be reached, or refuses; a repeated call is harmless."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self._name = name
        self._calls = asyncio.Semaphore(CALLS_MAX)

    @property
    def name(self) -> str:
        """For people: the address without credentials."""
        return self._name

    async def put(self, path: str, data: bytes | AsyncIterable[bytes]) -> None:
        """Stores the whole object at once, in the place of an older one; large ones in parts."""
        import obstore

        async with self._call("write", path):
            await obstore.put_async(
                self._backend, path, data, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_A_TIME
            )

    async def get(self, path: str) -> bytes:
        """Raises ObjectMissing."""
        import obstore

        async with self._call("read", path):
            return bytes(await (await obstore.get_async(self._backend, path)).bytes_async())

    async def get_range(self, path: str, begin: int, end: int) -> bytes:
        """Raises ObjectMissing."""
        import obstore

        async with self._call("read", path):
            return bytes(await obstore.get_range_async(self._backend, path, start=begin, end=end))

    async def list(self, prefix: str | None = None) -> list[StoredObject]:
        """All beneath a folder-like prefix."""
        import obstore

        async with self._call("list", prefix or ""):
            found = await obstore.list(self._backend, prefix).collect_async()
        return [StoredObject(path=each["path"], size=each["size"]) for each in found]

    async def size_bytes(self) -> int:
        """Of all objects. It lists them: slow for many."""
        import obstore

        total = 0
        async with self._call("list", ""):
            async for batch in obstore.list(self._backend, chunk_size=1000):
                total += sum(each["size"] for each in batch)
        return total

    async def delete(self, paths: Sequence[str]) -> None:
        """Missing is success."""
        import obstore

        for first in range(0, len(paths), DELETE_BATCH):
            try:
                async with self._call("delete", paths[first]):
                    await obstore.delete_async(self._backend, paths[first : first + DELETE_BATCH])
            except ObjectMissing:  # a folder says so, and stops there
                await self._delete_each(paths[first : first + DELETE_BATCH])

    async def _delete_each(self, paths: Sequence[str]) -> None:
        import obstore

        for path in paths:
            try:
                async with self._call("delete", path):
                    await obstore.delete_async(self._backend, path)
            except ObjectMissing:
                continue

    @asynccontextmanager
    async def _call(self, verb: str, path: str) -> AsyncIterator[None]:
        from obstore.exceptions import BaseError

        async with self._calls:
            try:
                yield
            except FileNotFoundError:
                raise ObjectMissing(path) from None
            except (BaseError, OSError) as error:
                raise self._unavailable(error, verb, path) from None

    def _unavailable(self, error: Exception, verb: str, path: str) -> StoreUnavailable:
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        words = first_words(error)
        kinds = (PermissionDeniedError, UnauthenticatedError, PermissionError)
        if isinstance(error, kinds) or _REFUSED.search(words):
            return StoreUnavailable(
                f"object store {self._name}: not allowed to {verb} {path!r}",
                cure="give the service's credentials the right to read, write, list and delete there",
            )
        return StoreUnavailable(
            f"object store {self._name}: cannot {verb} {path!r}: {words}",
            cure="check its address, the network and the bucket; what waits is kept here and sent later",
        )


def open_object_store(
    url: str, options: Mapping[str, str], *, allow_http: bool = False, field: str
) -> ObjectStore:
    """`url` is s3://bucket/prefix and its kin; `options` are obstore's own (`aws_endpoint`, …), beside the usual
    environment variables. Connects to nothing. Raises ConfigError naming `field`."""
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES or not rest:
        raise ConfigError(
            f"{field}: {without_credentials(url)!r} is no address of an object store",
            field=field,
            cure="write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder",
        )
    try:
        from obstore import store as backends
    except ImportError:
        raise ConfigError(
            f"{field}: an object store needs a package that is not installed",
            field=field,
            cure='pip install "runyard[s3]"',
        ) from None
    backend = _backend(backends, url, scheme, options, allow_http=allow_http, field=field)
    return ObjectStore(backend, without_credentials(url))


def _backend(
    backends: Any, url: str, scheme: str, options: Mapping[str, str], *, allow_http: bool, field: str
) -> Backend:
    from obstore.exceptions import BaseError

    try:
        if scheme == "file":
            return cast("Backend", backends.from_url(url, mkdir=True))
        made = backends.from_url(
            url,
            config={**(_S3_DEFAULTS if scheme == "s3" else {}), **options},
            client_options={"allow_http": allow_http, "timeout": f"{REQUEST_TIMEOUT_S}s"},
            retry_config={"max_retries": RETRIES_MAX, "retry_timeout": timedelta(seconds=RETRY_S)},
        )
        return cast("Backend", made)
    except (BaseError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{field}: {without_credentials(url)}: {first_words(error)}",
            field=field,
            cure="correct the address, or the names in object_store.options",
        ) from None


def without_credentials(url: str) -> str:
    return re.sub(r"(?<=://)[^/?#]*@", "", url).partition("?")[0]


def first_words(error: BaseException) -> str:
    """An error of obstore goes on with a dump of the request, which may hold what signs it."""
    text = str(error).strip().splitlines()
    words = text[0] if text else type(error).__name__
    return re.sub(r"\?\S*", "", words)[
        :300
    ]  # a signed address carries its signature behind the question mark
