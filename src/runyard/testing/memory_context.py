"""A RunContext that only remembers: what a provider recorded of an attempt, for tests to look at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Mapping
from pathlib import Path
from typing import Any, cast

from runyard.logs.layout import stream_file
from runyard.model.attempt import merge_placement
from runyard.model.errors import Conflict, Invalid, Unreachable
from runyard.model.machine import Binding, Machine
from runyard.providers.port import Records


class NoRecords:
    """The rows of a pool that has no machines."""

    epoch = 1

    async def now(self) -> float:
        return time.time()

    async def list_machines(self, *, with_gone: bool = False) -> list[Machine]:
        return []

    async def list_bindings(self, *, machine: str | None = None) -> list[Binding]:
        return []

    def __getattr__(self, name: str) -> Any:
        raise Unreachable(f"this world keeps no machines, and was asked for {name}")


class MemoryLog:
    """What was printed, by (step, stream)."""

    def __init__(self) -> None:
        self.streams: dict[tuple[str, str], bytes] = {}

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        kept = self.streams.get((step, stream), b"")
        rest = data[max(0, len(kept) - offset) :]
        if kept[offset : offset + len(data)] != data[: len(data) - len(rest)]:
            raise Conflict(f"{step}.{stream}: other bytes are stored at {offset} already")
        if rest:
            self.streams[step, stream] = kept.ljust(offset, b"\0") + rest

    async def size(self, step: str, stream: str) -> int:
        return len(self.streams.get((step, stream), b""))


class MemoryContext:
    """`folder` is where a provider on this host writes logs and artifacts; others never touch it."""

    def __init__(
        self,
        folder: Path = Path("/nonexistent"),
        *,
        log_bytes_max: int = 1 << 20,
        records: Records | None = None,
        log: MemoryLog | None = None,
    ) -> None:
        self._folder = folder
        self._log_bytes_max = log_bytes_max
        self._changed = asyncio.Event()
        self.phases: dict[str, float] = {}
        self.outputs: dict[str, str] = {}
        self.placement: dict[str, str] = {}
        self.cache_uses: dict[tuple[str, str], int] = {}
        self.progress: list[str | None] = []
        self.artifacts: dict[str, bytes] = {}
        self.log = log or MemoryLog()
        self.records = records or cast(Records, NoRecords())

    def may_create(self, within_s: float) -> bool:
        """As under a lease of 15 s that is renewed each 3 s, and was once not: who asks for more never starts there."""
        return within_s < 9.0

    @property
    def log_directory(self) -> Path:
        return self._folder / "log"

    @property
    def log_bytes_max(self) -> int:
        return self._log_bytes_max

    @property
    def artifact_directory(self) -> Path:
        return self._folder / "artifacts"

    async def record_phase(self, name: str, at: float) -> None:
        self.phases.setdefault(name, at)
        self._changed.set()

    async def record_outputs(self, outputs: Mapping[str, str]) -> None:
        self.outputs.update(outputs)

    async def record_placement(self, facts: Mapping[str, str]) -> None:
        self.placement = merge_placement(self.placement, facts)

    async def record_cache_use(self, cache: str, result: str, total: int) -> None:
        self.cache_uses[cache, result] = total

    async def record_progress(
        self,
        text: str | None,
        *,
        fraction: float | None = None,
        done_bytes: int | None = None,
        total_bytes: int | None = None,
    ) -> None:
        assert fraction is None or 0 <= fraction <= 1, fraction
        self.progress.append(text)

    async def store_artifact(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        if path.startswith("/") or ".." in path.split("/"):
            raise Invalid(f"artifact {path!r} is no path within the workspace", field="path")
        self.artifacts[path] = b"".join([chunk async for chunk in chunks])

    def printed(self, step: str = "000", stream: str = "stdout") -> bytes:
        """What came of that stream, whichever way."""
        file = stream_file(self.log_directory, step, stream)
        return file.read_bytes() if file.exists() else self.log.streams.get((step, stream), b"")

    async def reached(self, phase: str) -> None:
        """Returns once the phase is recorded."""
        while phase not in self.phases:
            self._changed.clear()
            await self._changed.wait()
