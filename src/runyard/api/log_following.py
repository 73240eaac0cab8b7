"""The log of a job as it grows, attempt after attempt, as server-sent events with a cursor to go on from."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from runyard.api.server_sent import encode_event
from runyard.api.services import ApiContext
from runyard.api.step_names import StepNames
from runyard.logs.layout import STREAMS, is_service
from runyard.logs.port import Chunk, Gap
from runyard.model.attempt import AttemptKey, AttemptState
from runyard.model.errors import Invalid, LedgerUnavailable
from runyard.model.job import Job

REREAD_S = 2.0  # the timer behind the subscription
_CURSOR = re.compile(r"(\d{1,9})((?:,[0-9a-z]{1,9}\.[oe]\d{1,16})*)")
CURSOR_LENGTH_MAX = 40_000


@dataclass(slots=True)
class LogCursor:
    """Where a follower stands: an attempt, and the next offset of each of its streams. Text: `2,000.o117,000.e5`."""

    attempt: int
    positions: dict[tuple[str, str], int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = (f",{step}.{stream[3]}{offset}" for (step, stream), offset in self.positions.items())
        return str(self.attempt) + "".join(parts)

    @classmethod
    def parse(cls, text: str) -> LogCursor:
        match = _CURSOR.fullmatch(text) if len(text) <= CURSOR_LENGTH_MAX else None
        if match is None:
            raise Invalid(
                f"Last-Event-ID: {text[:60]!r} is no cursor of a log",
                field="Last-Event-ID",
                cure="send the id of the last event as it came, or none to begin anew",
            )
        cursor = cls(int(match[1]))
        for part in match[2].split(",")[1:]:
            step, _, place = part.partition(".")
            stream = next(name for name in STREAMS if name[3] == place[0])
            cursor.positions[step, stream] = int(place[1:])
        return cursor


class LogFollower:
    """Follows one attempt (`only`), or the job's newest and those that come after it."""

    def __init__(
        self,
        context: ApiContext,
        job: Job,
        *,
        only: int | None,
        cursor: LogCursor | None,
        step: str | None,
        has_services: bool = False,
    ) -> None:
        """`step` None is all of them; what services print only with `has_services`: it is no output of the job's."""
        self._has_services = has_services
        self._context = context
        self._job = job
        self._only = only
        self._names = StepNames(job.spec)
        self._step = step
        self._cursor = cursor or LogCursor(only or 0)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Ends with an `end` event once the job, or the one attempt, has ended and all its bytes were given."""
        if self._only is not None and self._cursor.attempt != self._only:
            self._cursor = LogCursor(self._only)
        job = await self._wait_for_attempt(self._job, max(1, self._cursor.attempt))
        if job is not None and self._cursor.attempt == 0:
            self._cursor.attempt = job.attempts
        while job is not None and job.attempts >= self._cursor.attempt > 0:
            async with contextlib.aclosing(self._attempt_frames()) as frames:
                async for frame in frames:
                    yield frame
            if self._only is not None:
                break
            job = await self._wait_for_attempt(job, self._cursor.attempt + 1)
            if job is not None and job.attempts > self._cursor.attempt:
                self._cursor = LogCursor(self._cursor.attempt + 1)
            else:
                break
        yield await self._end()

    async def _attempt_frames(self) -> AsyncGenerator[bytes, None]:
        key = AttemptKey(self._job.uid, self._cursor.attempt)
        logs = self._context.services.logs
        async with self._watch_end(key) as ended:
            async for item in logs.follow(key, dict(self._cursor.positions), ended):
                position = item.offset + len(item.data) if isinstance(item, Chunk) else item.to
                self._cursor.positions[item.step, item.stream] = position
                name = self._names.name_of(item.step)
                if self._step == name or (self._step is None and self._is_shown(item.step)):
                    yield self._encode(item, name)

    def _is_shown(self, key: str) -> bool:
        return self._has_services or not is_service(key)

    def _encode(self, item: Chunk | Gap, name: str) -> bytes:
        body: dict[str, object] = {
            "attempt": self._cursor.attempt,
            "step": name,
            "stream": item.stream,
            "offset": item.offset,
        }
        if isinstance(item, Chunk):
            body["data"] = base64.b64encode(item.data).decode()
            return encode_event(json.dumps(body).encode(), cursor=str(self._cursor))
        body["to"] = item.to
        kind = "cut" if item.is_cut else "gap"
        return encode_event(json.dumps(body).encode(), cursor=str(self._cursor), event=kind)

    @contextlib.asynccontextmanager
    async def _watch_end(self, key: AttemptKey) -> AsyncIterator[asyncio.Event]:
        """An event that is set once the attempt has ended in the ledger, which is after its last byte."""
        ended = asyncio.Event()
        watcher = asyncio.create_task(self._set_when_ended(key, ended))
        try:
            yield ended
        finally:
            watcher.cancel()

    async def _set_when_ended(self, key: AttemptKey, ended: asyncio.Event) -> None:
        ledger = self._context.services.ledger
        subscription = ledger.subscribe(f"job:{key.uid}")
        try:
            while True:
                with contextlib.suppress(LedgerUnavailable):
                    attempt = await ledger.get_attempt(key)
                    if attempt is None or attempt.state is AttemptState.ENDED:
                        break
                await subscription.wait(REREAD_S)
            ended.set()
        finally:
            subscription.close()

    async def _wait_for_attempt(self, job: Job, number: int) -> Job | None:
        """The job once it has that many attempts or is final; None when it was deleted."""
        ledger = self._context.services.ledger
        subscription = ledger.subscribe(f"job:{job.uid}")
        try:
            while True:
                current = await ledger.get_job(job.uid)
                if current is None or current.state.is_final or current.attempts >= number:
                    return current
                await subscription.wait(REREAD_S)
        finally:
            subscription.close()

    async def _end(self) -> bytes:
        """The state of what was followed: the one attempt's, or the job's with its last attempt's code."""
        ledger = self._context.services.ledger
        key = AttemptKey(self._job.uid, max(1, self._cursor.attempt))
        attempt = await ledger.get_attempt(key)
        outcome = attempt.outcome if attempt else None
        job = await ledger.get_job(self._job.uid) or self._job
        state = outcome.kind.value if self._only is not None and outcome else job.state.value
        body = {
            "state": state,
            "exit_code": outcome.exit_code if outcome else None,
            "signal": outcome.signal if outcome else None,
        }
        return encode_event(json.dumps(body).encode(), cursor=str(self._cursor), event="end")
