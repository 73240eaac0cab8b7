"""Server-sent events out of bytes that arrive in any pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. `id` is the last one seen in the stream, as the standard has it; "" before any."""

    event: str
    data: str
    id: str


class EventParser:
    """Feed it bytes, it gives whole events. Follows the WHATWG's `text/event-stream`; comments are dropped."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_return = False
        self._event, self._id = "", ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        for line in self._lines(chunk):
            if line:
                self._take_field(line.decode("utf-8", "replace"))
                continue
            if self._data:
                yield ServerSentEvent(self._event or "message", "\n".join(self._data), self._id)
            self._event, self._data = "", []

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        """Whole lines, ended by LF, CR or CRLF; a CRLF may be torn between two chunks."""
        if not chunk:
            return
        is_torn = self._after_return and chunk[:1] == b"\n"
        self._after_return = chunk[-1:] == b"\r"
        if is_torn:
            chunk = chunk[1:]
        if b"\n" not in chunk and b"\r" not in chunk:
            self._rest += chunk
            return
        *lines, rest = (bytes(self._rest) + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = bytearray(rest)
        yield from lines

    def _take_field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
