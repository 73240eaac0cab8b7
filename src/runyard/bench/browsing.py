"""What a browser asks of the operator pages, without one: a session, pages, and their streams of newest states."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import time
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import urlencode, urlsplit

FRAME = b"event: page\n"
_EVENT_END = b"\n\n"
_FRAME_BYTES_MAX = 4 << 20


class Browser:
    """Signed in; asks for pages one at a time, on one connection."""

    def __init__(self, url: str, token: str) -> None:
        self._address = urlsplit(url)
        assert self._address.hostname is not None
        self._connection = http.client.HTTPConnection(self._address.hostname, self._address.port, timeout=60)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        self._connection.request("POST", "/sign-in", urlencode({"token": token}), headers)
        answer = self._connection.getresponse()
        answer.read()
        self._cookie = (answer.getheader("set-cookie") or "").partition(";")[0]

    def close(self) -> None:
        self._connection.close()

    async def get_s(self, path: str) -> float:
        """How long the page took, to its last byte. Raises RuntimeError where there is none."""
        return await asyncio.to_thread(self._get_s, path)

    def _get_s(self, path: str) -> float:
        began = time.perf_counter()
        self._connection.request("GET", path, headers={"Cookie": self._cookie})
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
        return time.perf_counter() - began

    @contextlib.asynccontextmanager
    async def watch(self, paths: Sequence[str]) -> AsyncIterator[list[Viewer]]:
        """That many pages that are open and move; each has its first state before this is entered."""
        async with contextlib.AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(self._watching(path)) for path in paths]
            await asyncio.gather(*(viewer.shows(lambda _: True) for viewer in viewers))
            yield viewers

    @contextlib.asynccontextmanager
    async def _watching(self, path: str) -> AsyncIterator[Viewer]:
        address = self._address
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=_FRAME_BYTES_MAX)
        head = f"GET /live?{urlencode({'at': path})} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        writer.write(f"{head}Cookie: {self._cookie}\r\n\r\n".encode())
        try:
            yield Viewer(reader)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class Viewer:
    """One open page, as the states that come of it."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def shows(self, wanted: Callable[[bytes], bool]) -> float:
        """Reads on until a state is as `wanted`. When that came, by time.perf_counter."""
        while True:
            event = await self._reader.readuntil(_EVENT_END)
            if FRAME in event and wanted(event):
                return time.perf_counter()

    async def reads_on(self) -> None:
        """Until the page's end."""
        while await self._reader.read(1 << 16):
            pass
