"""A link that a test can cut: what goes through it stops without a word, or is broken off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable


class TcpProxy:
    """Forwards to `port` on this host, until it is told otherwise."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refuses = False
        self._may_pass = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.port = 0

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def halt(self) -> None:
        """A black hole: connections stay, new ones are taken, and nothing comes through."""
        self._do(self._may_pass.clear)

    def reset(self) -> None:
        """All are broken off, and new ones too."""
        self._do(self._break_off)

    def heal(self) -> None:
        self._do(self._let_pass)

    def _do(self, change: Callable[[], None]) -> None:
        async def done() -> None:
            change()

        asyncio.run_coroutine_threadsafe(done(), self._loop).result()

    def _break_off(self) -> None:
        self._refuses = True
        for writer in self._writers:
            _abort(writer)

    def _let_pass(self) -> None:
        self._refuses = False
        self._may_pass.set()

    async def _listen(self) -> None:
        self._may_pass.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        self._break_off()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self._refuses:
                return
            await self._may_pass.wait()
            back, there = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(there)
            await asyncio.gather(self._pump(reader, there), self._pump(back, writer))
        except OSError:
            return
        finally:
            for end in (writer, there):
                if end is not None:
                    _abort(end)
                    self._writers.discard(end)
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._may_pass.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # one end is gone: so is the other


def _abort(writer: asyncio.StreamWriter) -> None:
    """With a reset rather than a farewell."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
