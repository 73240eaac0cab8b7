"""The wire between a provider and its daemon, as a unix socket that can be cut, and can swallow or replace a reply."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path


class DockerWire:
    def __init__(self, folder: Path, target: Path) -> None:
        self._socket = folder / "wire.sock"
        self._target = target
        self._is_cut = False
        self._lost: re.Pattern[bytes] | None = None
        self._refused: tuple[re.Pattern[bytes], str] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"unix://{self._socket}"

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, target: Path) -> AsyncIterator[DockerWire]:
        with tempfile.TemporaryDirectory(prefix="rw-") as folder:
            wire = cls(Path(folder), target)
            server = await asyncio.start_unix_server(wire._serve, wire._socket)
            try:
                yield wire
            finally:
                server.close()
                wire._close_all()
                await asyncio.gather(*wire._tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        self._is_cut = True
        self._close_all()
        try:
            yield
        finally:
            self._is_cut = False

    def lose_reply(self, request: bytes) -> None:
        """The next request that looks like this takes place, and nobody hears of it."""
        self._lost = re.compile(request)

    def refuse(self, request: bytes, words: str) -> None:
        """The next request that looks like this is answered with an error, and goes nowhere."""
        self._refused = re.compile(request), words

    def _close_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            daemon_reader, daemon_writer = await asyncio.open_unix_connection(self._target)
            self._writers.add(daemon_writer)
            back = asyncio.create_task(self._copy_back(daemon_reader, writer))
            await self._copy(reader, writer, daemon_reader, daemon_writer, back)
            await back
        except OSError:
            pass
        finally:
            writer.transport.abort()
            if "daemon_writer" in locals():
                daemon_writer.transport.abort()

    async def _copy(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        daemon_reader: asyncio.StreamReader,
        daemon_writer: asyncio.StreamWriter,
        back: asyncio.Task[None],
    ) -> None:
        while data := await reader.read(1 << 16):
            if self._refused is not None and self._refused[0].search(data):
                body = json.dumps({"message": self._refused[1]}).encode()
                self._refused = None
                head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
                head += b"Content-Length: %d\r\n\r\n"
                writer.write(head % len(body) + body)
                continue
            if self._lost is not None and self._lost.search(data):
                self._lost = None
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
                daemon_writer.write(data)
                await daemon_reader.read(1)  # it took place
                raise ConnectionResetError
            daemon_writer.write(data)
            await daemon_writer.drain()
        if daemon_writer.can_write_eof():
            daemon_writer.write_eof()

    async def _copy_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.transport.abort() if writer.is_closing() else writer.close()
