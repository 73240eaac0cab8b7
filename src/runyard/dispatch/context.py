"""What a running attempt may use of Runyard: a RunContext over the ledger, under the owner's fence.

Phases are remembered here and reach the ledger together: `running` soon after it began (so that people see it), all
of them with the outcome. An attempt that ends within RUNNING_DELAY_S costs no write of its own for being seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from runyard.dispatch.ownership import PoolLease
from runyard.ledger.port import Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Fenced, LedgerUnavailable

RUNNING_DELAY_S = 0.015
LEDGER_RETRY_S = 1.0


class AttemptContext:
    """The RunContext (providers/port.py) of one attempt."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        lease: PoolLease,
        key: AttemptKey,
        log_directory: Path,
        log_bytes_max: int,
        artifact_directory: Path,
    ) -> None:
        self._ledger = ledger
        self._lease = lease
        self._key = key
        self._log_directory = log_directory
        self._log_bytes_max = log_bytes_max
        self._artifact_directory = artifact_directory
        self._flush: asyncio.Task[None] | None = None
        self.phases: dict[str, float] = {}
        self.outputs: dict[str, str] = {}

    def may_create(self, within_s: float) -> bool:
        return self._lease.outlasts(within_s)

    @property
    def log_directory(self) -> Path:
        return self._log_directory

    @property
    def log_bytes_max(self) -> int:
        return self._log_bytes_max

    @property
    def artifact_directory(self) -> Path:
        return self._artifact_directory

    async def record_phase(self, name: str, at: float) -> None:
        self.phases.setdefault(name, at)
        if name == "running" and self._flush is None:
            self._flush = asyncio.create_task(self._record_running())

    async def record_outputs(self, outputs: Mapping[str, str]) -> None:
        self.outputs.update(outputs)

    async def close(self) -> None:
        """Ends what is still under way here; the outcome carries the phases."""
        if self._flush is not None:
            self._flush.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flush

    async def _record_running(self) -> None:
        await asyncio.sleep(RUNNING_DELAY_S)
        while True:
            try:
                await self._ledger.record_phases(self._lease.fence, self._key, dict(self.phases))
                return
            except LedgerUnavailable:
                await asyncio.sleep(LEDGER_RETRY_S)
            except Fenced:
                return  # the loop that owns this attempt learns of it by its own writes
