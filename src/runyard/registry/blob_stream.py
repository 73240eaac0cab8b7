"""One blob as it comes: counted against its stated size, hashed, resumed where the connection drops."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2

from runyard.model.errors import RegistryCorrupt, RegistryUnreachable
from runyard.registry.credentials import Credentials
from runyard.registry.exchange import Exchange, unreachable
from runyard.registry.reference import Reference, is_digest

IDLE_TRIES = 4  # connections in a row that brought nothing
RESUMES_MAX = 32  # of one blob, so that a byte for each connection does not go on for ever
_PAUSE_S = 0.2
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:(\d{1,18})|\*)")


class BlobStream:
    """Iterate over it once, after `open`. `size` is the whole blob's; None where the registry does not say it."""

    def __init__(
        self,
        exchange: Exchange,
        reference: Reference,
        digest: str,
        *,
        size: int | None,
        credentials: Credentials | None,
        offset: int,
        before: Any,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        if not is_digest(digest):
            raise ValueError(f"{digest!r:.80} is no digest")
        if bool(offset) != (before is not None):
            raise ValueError("an offset needs the hash of what lies before it, and only an offset does")
        self.size = size
        self.digest = digest
        self.offset = offset  # of the next byte
        self.hash = hashlib.sha256() if before is None else before.copy()
        self._exchange = exchange
        self._reference = reference
        self._credentials = credentials
        self._sleep = sleep
        self._answer: contextlib.AbstractAsyncContextManager[httpx2.Response] | None = None
        self._response: httpx2.Response | None = None
        self._skip = 0  # bytes of this answer that we have

    async def open(self) -> None:
        """The first answer, tried a few times. Raises RegistryError."""
        for number in range(IDLE_TRIES - 1):
            try:
                return await self._connect()
            except RegistryUnreachable:
                await self._sleep(_PAUSE_S * 4**number)
        return await self._connect()

    async def close(self) -> None:
        answer, self._answer, self._response = self._answer, None, None
        if answer is not None:
            await answer.__aexit__(None, None, None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        resumes = idle = 0
        while True:
            start = self.offset
            try:
                async with contextlib.aclosing(self._pieces()) as pieces:
                    async for piece in pieces:
                        yield piece
                break
            except RegistryUnreachable:
                idle = 0 if self.offset > start else idle + 1
                resumes += 1
                if idle >= IDLE_TRIES or resumes > RESUMES_MAX:
                    raise
            await self._sleep(_PAUSE_S * 4**idle)
        self._verify()

    async def _pieces(self) -> AsyncGenerator[bytes]:
        """What one connection brings. Raises RegistryUnreachable where it ends too early."""
        if self._response is None:
            await self._connect()
        assert self._response is not None
        try:
            async for piece in self._response.aiter_raw():
                if self._skip:
                    dropped = min(self._skip, len(piece))
                    self._skip -= dropped
                    piece = piece[dropped:]
                if piece:
                    self._take(piece)
                    yield piece
        except httpx2.HTTPError as error:
            raise unreachable(self._reference, error) from None
        finally:
            await self.close()
        if self.size is not None and self.offset < self.size:
            raise RegistryUnreachable(
                f"{self._reference.host} ended after {self.offset} of the {self.size} bytes of {self.digest}"
            )

    def _take(self, piece: bytes) -> None:
        self.offset += len(piece)
        if self.size is not None and self.offset > self.size:
            raise RegistryCorrupt(
                f"{self._reference}: {self.digest} is larger than the {self.size} bytes that it was said to be"
            )
        self.hash.update(piece)

    def _verify(self) -> None:
        came = f"sha256:{self.hash.hexdigest()}"
        if came != self.digest:
            raise RegistryCorrupt(f"{self._reference}: what should be {self.digest} came as {came}")

    async def _connect(self) -> None:
        """Asks for the rest. A registry that sends the whole blob again has its beginning thrown away."""
        headers = {"Range": f"bytes={self.offset}-"} if self.offset else {}
        answer = self._exchange.request(
            "GET",
            self._reference,
            f"/blobs/{self.digest}",
            credentials=self._credentials,
            headers=headers,
        )
        response = await answer.__aenter__()
        self._answer, self._response = answer, response
        try:
            begins_at, size = _extent(response)
            if begins_at not in (0, self.offset):
                raise RegistryCorrupt(
                    f"{self._reference.host} sent another part of {self.digest} than was asked for"
                )
            if self.size is None:
                self.size = size
            elif size is not None and size != self.size:
                raise RegistryCorrupt(
                    f"{self._reference}: {self.digest} has {size} bytes, not the {self.size} it was said to have"
                )
        except BaseException:
            await self.close()
            raise
        self._skip = self.offset - begins_at


def _extent(response: httpx2.Response) -> tuple[int, int | None]:
    """Where the body begins within the blob, and how large the blob is, if that was said."""
    if response.status_code == 206:
        parsed = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
        if parsed is None:
            return -1, None
        return int(parsed[1]), int(parsed[3]) if parsed[3] else None
    length = response.headers.get("content-length", "")
    return 0, int(length) if length.isdecimal() and len(length) <= 18 else None
