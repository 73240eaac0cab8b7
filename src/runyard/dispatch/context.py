"""What a running attempt may use of Runyard: a RunContext over the ledger and the stores, under the owner's fence.

Phases, placement and progress are remembered here. `running` reaches the ledger soon after it began (so that people see
it), what is told while an attempt prepares at most once a second, all that lasts with the outcome. An attempt that ends
within RUNNING_DELAY_S costs no write of its own for being seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from runyard.dispatch.masked_log import MaskedLog
from runyard.dispatch.ownership import PoolLease
from runyard.dispatch.records import LeaseRecords
from runyard.dispatch.telemetry import CacheUse, cache_use
from runyard.ledger.port import Ledger
from runyard.logs.masking import Masks
from runyard.logs.port import LogSink
from runyard.model.attempt import PROGRESS_CHARS_MAX, AttemptKey, Progress, merge_placement
from runyard.model.errors import Fenced, LedgerUnavailable, Unreachable
from runyard.model.outcome import Outcome
from runyard.model.secret import SecretValue

RUNNING_DELAY_S = 0.015
STATUS_DELAY_S = 0.5
"""Of the first placement or progress: what is ready by then has nothing to say but where it ran, with its outcome."""

STATUS_EVERY_S = 1.0
LEDGER_RETRY_S = 1.0


class ArtifactSink(Protocol):
    """The one of artifacts/port.py, which this room does not import."""

    async def store(self, path: str, chunks: AsyncIterable[bytes]) -> None: ...


class AttemptContext:
    """The RunContext (providers/port.py) of one attempt. `log_sink` and `artifact_sink` are asked for at the first
    use: an attempt on this host writes into the folders itself."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        lease: PoolLease,
        key: AttemptKey,
        log_directory: Path,
        log_bytes_max: int,
        artifact_directory: Path,
        log_sink: Callable[[], LogSink] | None = None,
        artifact_sink: Callable[[], ArtifactSink] | None = None,
    ) -> None:
        self._ledger = ledger
        self._lease = lease
        self._key = key
        self._log_directory = log_directory
        self._log_bytes_max = log_bytes_max
        self._artifact_directory = artifact_directory
        self._log_sink = log_sink
        self._artifact_sink = artifact_sink
        self._masks = Masks(())
        self._log: _Log | MaskedLog | None = None
        self._artifacts: ArtifactSink | None = None
        self._running: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._records = LeaseRecords(ledger, lease)
        self._is_news = False
        self._progress: Progress | None = None
        self.phases: dict[str, float] = {}
        self.placement: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.cache_uses: dict[CacheUse, int] = {}

    @property
    def records(self) -> LeaseRecords:
        return self._records

    def may_create(self, within_s: float) -> bool:
        return self._lease.outlasts(within_s)

    # -- what it hides --------------------------------------------------------------------------------------------
    def hide(self, secrets: Sequence[SecretValue]) -> None:
        """From now on these are in nothing that passes here. To be called before the attempt can tell anything."""
        self._masks = Masks(secret.value for secret in secrets)

    def masked(self, text: str) -> str:
        if not self._masks.forms:
            return text
        return self._masks.mask(text.encode(errors="replace")).decode(errors="replace")

    def masked_outcome(self, outcome: Outcome) -> Outcome:
        """What a place says of an end may quote what it was given."""
        reason = outcome.reason
        if reason is None or not self._masks.forms:
            return outcome
        return replace(outcome, reason=replace(reason, message=self.masked(reason.message)))

    # -- where it writes ------------------------------------------------------------------------------------------
    @property
    def log_directory(self) -> Path:
        return self._log_directory

    @property
    def log_bytes_max(self) -> int:
        return self._log_bytes_max

    @property
    def log(self) -> LogSink:
        if self._log is None:
            assert self._log_sink is not None, "this context was made without a log"
            self._log = _Log(self._log_sink())
            if self._masks.forms:
                self._log = MaskedLog(self._log, self._masks)
        return self._log

    @property
    def artifact_directory(self) -> Path:
        return self._artifact_directory

    async def store_artifact(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        if self._artifacts is None:
            assert self._artifact_sink is not None, "this context was made without artifacts"
            self._artifacts = self._artifact_sink()
        with _told_as_unreachable():
            await self._artifacts.store(path, chunks)

    # -- what it tells --------------------------------------------------------------------------------------------
    async def record_phase(self, name: str, at: float) -> None:
        self.phases.setdefault(name, at)
        if name == "running" and self._running is None:
            self._progress = None
            self._running = asyncio.create_task(self._record_running())

    async def record_outputs(self, outputs: Mapping[str, str]) -> None:
        self.outputs.update({name: self.masked(text) for name, text in outputs.items()})

    async def record_placement(self, facts: Mapping[str, str]) -> None:
        merged = merge_placement(self.placement, {name: self.masked(fact) for name, fact in facts.items()})
        if merged != self.placement:
            self.placement = merged
            self._tell()

    async def record_cache_use(self, cache: str, result: str, total: int) -> None:
        self.cache_uses[cache_use(cache, result)] = total

    async def record_progress(
        self,
        text: str | None,
        *,
        fraction: float | None = None,
        done_bytes: int | None = None,
        total_bytes: int | None = None,
    ) -> None:
        if self._running is not None:
            return
        self._progress = None
        if text is not None:
            self._progress = Progress(
                text=self.masked(text)[:PROGRESS_CHARS_MAX],
                at=self._lease.now(),
                fraction=None if fraction is None else min(1.0, max(0.0, fraction)),
                done_bytes=done_bytes,
                total_bytes=total_bytes,
            )
        self._tell()

    async def close(self) -> None:
        """Ends what is still under way here; the outcome carries the phases and the placement."""
        if isinstance(self._log, MaskedLog):
            await self._log.finish()
        for task in (self._running, self._telling):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _tell(self) -> None:
        self._is_news = True
        if self._telling is None or self._telling.done():
            delay_s = STATUS_DELAY_S if self._telling is None else 0.0
            self._telling = asyncio.create_task(self._tell_news(delay_s))

    async def _tell_news(self, delay_s: float) -> None:
        """One write a second at most, of the latest. It goes on for a second after the last, to keep that distance."""
        await asyncio.sleep(delay_s)
        while self._is_news:
            self._is_news = False
            await self._writing(
                lambda: self._ledger.record_status(
                    self._lease.fence, self._key, placement=self.placement, progress=self._progress
                )
            )
            await asyncio.sleep(STATUS_EVERY_S)

    async def _record_running(self) -> None:
        await asyncio.sleep(RUNNING_DELAY_S)
        await self._writing(
            lambda: self._ledger.record_phases(self._lease.fence, self._key, dict(self.phases))
        )

    async def _writing(self, write: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await write()
                return
            except LedgerUnavailable:
                await asyncio.sleep(LEDGER_RETRY_S)
            except Fenced:
                return  # the loop that owns this attempt learns of it by its own writes


class _Log:
    """The sink, with a disk that fails told as a provider may tell it."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        with _told_as_unreachable():
            await self._sink.append(step, stream, offset, data)

    async def size(self, step: str, stream: str) -> int:
        with _told_as_unreachable():
            return await self._sink.size(step, stream)


@contextlib.contextmanager
def _told_as_unreachable() -> Iterator[None]:
    """A full disk ends no attempt: its provider passes this on, and dispatch asks it again."""
    try:
        yield
    except OSError as error:
        raise Unreachable(f"what the attempt left cannot be kept: {error}") from error
