"""A RunContext that only remembers: what a provider recorded of an attempt, for tests to look at."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path


class MemoryContext:
    """`folder` is where a provider on this host writes logs and artifacts; others never touch it."""

    def __init__(self, folder: Path = Path("/nonexistent"), *, log_bytes_max: int = 1 << 20) -> None:
        self._folder = folder
        self._log_bytes_max = log_bytes_max
        self._changed = asyncio.Event()
        self.phases: dict[str, float] = {}
        self.outputs: dict[str, str] = {}

    def may_create(self, within_s: float) -> bool:
        return True

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

    async def reached(self, phase: str) -> None:
        """Returns once the phase is recorded."""
        while phase not in self.phases:
            self._changed.clear()
            await self._changed.wait()
