"""The log store's contract: append-only bytes by (attempt, step, stream, offset), each byte stored once.

`step` is a key of runyard.logs.layout (`000`, `setup`, `s000`), never a step's name: names belong to the job. Methods
are short; reading one never waits for another. Missing logs are empty, not an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runyard.model.attempt import AttemptKey

CHUNK_BYTES_MAX = 64 * 1024

Positions = Mapping[tuple[str, str], int]
"""(step, stream) -> the offset of the next byte to come; a stream that is not there stands at 0."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes [begin, end) that are not there: cut out by the log's bound (`is_cut`), or lost on the way."""

    begin: int
    end: int
    is_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """One stream as it stands. `size` is the offset at its end; `holes` are in order and do not overlap."""

    step: str
    stream: str
    size: int
    holes: tuple[Hole, ...] = ()

    @property
    def cut(self) -> Hole | None:
        return next((hole for hole in self.holes if hole.is_cut), None)

    def hole_at(self, offset: int) -> Hole | None:
        return next((hole for hole in self.holes if hole.begin <= offset < hole.end), None)

    def kept_bytes(self, begin: int, end: int) -> int:
        """How many bytes of [begin, end) are there."""
        end = min(end, self.size)
        missing = sum(max(0, min(end, hole.end) - max(begin, hole.begin)) for hole in self.holes)
        return max(0, end - begin - missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    step: str
    stream: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The bytes [offset, to) will not come; the stream goes on at `to`."""

    step: str
    stream: str
    offset: int
    to: int
    is_cut: bool


class LogSink(Protocol):
    """Where a writer that is far puts what an attempt printed."""

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        """Stores `data` at `offset`. Repeating it changes nothing. Bytes left out before `offset` are marked as a gap
        for good. Raises Conflict where other bytes are stored there already: a job cannot take back what it printed.
        """
        ...

    async def size(self, step: str, stream: str) -> int:
        """The offset of the next byte to come, 0 where none came yet: a writer that is new goes on from there."""
        ...


class LogStore(Protocol):
    def sink(self, key: AttemptKey) -> LogSink: ...

    def directory(self, key: AttemptKey) -> Path:
        """The attempt's own directory, made if missing, for a writer on this host (layout.py says how)."""
        ...

    async def streams(self, key: AttemptKey) -> list[StreamInfo]:
        """Every stream that has begun: setup first, then services, then steps; stdout before stderr."""
        ...

    async def read(self, key: AttemptKey, step: str, stream: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset`, perhaps fewer, ending before the next hole; empty at the end and inside
        a hole."""
        ...

    def follow(
        self, key: AttemptKey, positions: Positions, ended: asyncio.Event
    ) -> AsyncIterator[Chunk | Gap]:
        """Everything from `positions` on, as it arrives, in order within a stream. Ends once `ended` is set and every
        byte that was written before that was given."""
        ...

    async def delete(self, key: AttemptKey) -> None: ...

    async def delete_job(self, uid: str) -> None:
        """Removes the logs of all its attempts."""
        ...

    async def size_bytes(self) -> int:
        """What all logs take on disk; holes take nothing."""
        ...

    def close(self) -> None: ...
