"""What one container printed, as the kubelet keeps and serves it: lines with their times, rotation, an end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.kubernetes.strict_server.clock import Clock, nanoseconds_text


@dataclass(frozen=True)
class Line:
    """`number` counts from the container's start, over rotation."""

    at: datetime
    data: bytes
    number: int


@dataclass(frozen=True)
class LogOptions:
    follow: bool = False
    timestamps: bool = False
    since: datetime | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None


class ContainerLog:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: list[Line] = []
        self._count = 0
        self._open = b""  # a line without its newline is kept back by the runtime until the container ends
        self.ended = False
        self._changed = asyncio.Event()

    def write(self, data: bytes) -> None:
        *whole, self._open = (self._open + data).split(b"\n")
        for line in whole:
            self._append(line + b"\n")
        self._wake()

    def end(self) -> None:
        if self._open:
            self._append(self._open)
        self._open, self.ended = b"", True
        self._wake()

    def rotate(self, keep_lines: int) -> None:
        """The kubelet's rotation (10 MiB by default): what is older is gone, without a word in the log."""
        self._lines = self._lines[len(self._lines) - keep_lines :]

    def _append(self, data: bytes) -> None:
        self._lines.append(Line(self._clock.now(), data, self._count))
        self._count += 1

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def read(self, options: LogOptions) -> AsyncIterator[bytes]:
        """A chunk for each line; with `follow` until the container ends. `sinceTime` is cut to whole seconds."""
        left = options.limit_bytes
        position = self._start(options)
        while True:
            for line in [line for line in self._lines if line.number >= position]:
                position = line.number + 1
                if options.since and line.at < options.since:
                    continue
                data = (
                    nanoseconds_text(line.at).encode() + b" " + line.data if options.timestamps else line.data
                )
                if left is not None:
                    data, left = data[:left], left - len(data[:left])
                if data:
                    yield data
                if left == 0:
                    return
            if not options.follow or self.ended:
                return
            await self._changed.wait()

    def _start(self, options: LogOptions) -> int:
        if options.tail_lines is None:
            return 0
        kept = self._lines[-options.tail_lines :] if options.tail_lines else []
        return kept[0].number if kept else self._count


def whole_seconds(at: datetime) -> datetime:
    """metav1.Time loses what is below a second on its way through the API server."""
    return at.replace(microsecond=0)


def seconds_ago(clock: Clock, seconds: int) -> datetime:
    return clock.now() - timedelta(seconds=seconds)
