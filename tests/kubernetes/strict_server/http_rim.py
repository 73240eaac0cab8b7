"""HTTP/1.1 and websockets on a free loopback port: bytes in, `Request` out, and the answers with the planned faults."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import h11
from websockets.frames import Opcode
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from tests.kubernetes.strict_server.exchange import (
    Answer,
    CutConnection,
    Request,
    Stream,
    Upgrade,
    refusal_answer,
)
from tests.kubernetes.strict_server.faults import Faults, Kind
from tests.kubernetes.strict_server.status import Refusal

Reply = Answer | Stream | Upgrade
Handler = Callable[[Request], Reply]


class HttpRim:
    """`requests` has every request in the order of its arrival, as `METHOD path?query`."""

    def __init__(self, handler: Handler, faults: Faults) -> None:
        self._handler, self._faults = handler, faults
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[str] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, h11.RemoteProtocolError):
                await Connection(reader, writer, self._reply, self._faults, self.requests).serve()
        except (CutConnection, asyncio.CancelledError):
            reset(writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    def _reply(self, request: Request) -> Reply:
        try:
            return self._handler(request)
        except Refusal as refused:
            return refusal_answer(refused)


class Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        reply: Handler,
        faults: Faults,
        requests: list[str],
    ) -> None:
        self._reader, self._writer = reader, writer
        self._reply, self._faults, self._requests = reply, faults, requests
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)

    async def serve(self) -> None:
        while (request := await self._read()) is not None:
            self._requests.append(str(request))
            reply = await self._with_faults(request)
            if isinstance(reply, Upgrade):
                await WebSocket(self._reader, self._writer).serve(request, reply, self._http.trailing_data[0])
                return
            if isinstance(reply, Stream):
                await self._send_stream(reply)
                return
            await self._send(reply)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _with_faults(self, request: Request) -> Reply:
        fault = self._faults.take(str(request))
        if fault is None:
            return self._reply(request)
        match fault.kind:
            case Kind.RESET:
                raise CutConnection
            case Kind.ANSWER:
                assert fault.answer is not None
                return refusal_answer(fault.answer)
            case Kind.HOLD:
                await fault.gate.wait()
                return self._reply(request)
            case Kind.DROP_REPLY | Kind.NEVER_ANSWER | Kind.TRUNCATE:
                return await self._spoil(fault.kind, request)

    async def _spoil(self, kind: Kind, request: Request) -> Reply:
        """What was asked happens; its answer does not come, or not whole."""
        reply = self._reply(request)
        if kind is Kind.DROP_REPLY:
            raise CutConnection
        if kind is Kind.NEVER_ANSWER:
            await self._reader.read()
            raise CutConnection
        assert isinstance(reply, Answer), f"only a whole answer can be cut short: {request}"
        await self._send(reply, only=len(reply.body) // 2)
        raise CutConnection

    async def _read(self) -> Request | None:
        head: h11.Request | None = None
        body = b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(1 << 16))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return as_request(head, body)
            else:
                return None

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)

    async def _send(self, answer: Answer, *, only: int | None = None) -> None:
        headers = [*answer.headers.items()]
        if answer.code != 204:
            headers.append(("Content-Length", str(len(answer.body))))
        self._write(h11.Response(status_code=answer.code, headers=headers))
        if answer.body:
            self._write(h11.Data(data=answer.body[:only]))
        await self._writer.drain()
        if only is None:
            self._write(h11.EndOfMessage())
            await self._writer.drain()

    async def _send_stream(self, stream: Stream) -> None:
        """Chunked, on a connection of its own. The client going away ends the stream's generator at once."""
        headers = [
            ("Content-Type", stream.content_type),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
        ]
        self._write(h11.Response(status_code=200, headers=headers))
        gone = asyncio.ensure_future(self._reader.read())
        sending = asyncio.ensure_future(self._send_chunks(stream))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise CutConnection
            await sending
        finally:
            for task in (gone, sending):
                task.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)

    async def _send_chunks(self, stream: Stream) -> None:
        async with contextlib.aclosing(stream.chunks) as chunks:  # type: ignore[type-var]
            await self._writer.drain()
            async for chunk in chunks:
                self._write(h11.Data(data=chunk))
                await self._writer.drain()
        self._write(h11.EndOfMessage())
        await self._writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """RST and not FIN: nobody may take it for the end of an answer."""
    if (connection := writer.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):  # the client may have closed it first
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def as_request(head: h11.Request, body: bytes) -> Request:
    split = urlsplit(head.target.decode())
    headers = {bytes(name).decode().lower(): bytes(value).decode() for name, value in head.headers}
    return Request(bytes(head.method).decode(), unquote(split.path), split.query, headers, body)


class WebSocket:
    """One exec session over a connection whose request was read already."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def serve(self, request: Request, upgrade: Upgrade, trailing: bytes) -> None:
        protocol = ServerProtocol(subprotocols=[Subprotocol(each) for each in upgrade.protocols])
        protocol.receive_data(head_bytes(request) + trailing)
        (asked, *_) = protocol.events_received()
        protocol.send_response(protocol.accept(asked))  # type: ignore[arg-type]
        self._flush(protocol)
        receiving = asyncio.ensure_future(self._receive(protocol, upgrade))
        sending = asyncio.ensure_future(self._send(protocol, upgrade))
        try:
            await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
                await asyncio.wait({receiving}, timeout=1)
        finally:
            for task in (receiving, sending):
                task.cancel()
            await asyncio.gather(receiving, sending, return_exceptions=True)

    async def _send(self, protocol: ServerProtocol, upgrade: Upgrade) -> None:
        async with contextlib.aclosing(upgrade.serve(str(protocol.subprotocol))) as frames:  # type: ignore[type-var]
            async for frame in frames:
                protocol.send_binary(frame)
                self._flush(protocol)
                await self._writer.drain()
        protocol.send_close(1000)
        self._flush(protocol)
        await self._writer.drain()

    async def _receive(self, protocol: ServerProtocol, upgrade: Upgrade) -> None:
        while data := await self._reader.read(1 << 16):
            protocol.receive_data(data)
            for frame in protocol.events_received():
                if getattr(frame, "opcode", None) in {Opcode.BINARY, Opcode.TEXT}:
                    upgrade.give_stdin(bytes(frame.data))  # type: ignore[union-attr]
            self._flush(protocol)
            if protocol.close_expected():
                return

    def _flush(self, protocol: ServerProtocol) -> None:
        for data in protocol.data_to_send():
            if data:
                self._writer.write(data)


def head_bytes(request: Request) -> bytes:
    """The request's head again, for the websocket library, which reads it itself."""
    lines = [f"GET {request.path}?{request.query_text} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()
