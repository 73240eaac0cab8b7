"""Follows an attempt on this host from the service: starts it, or adopts it, or finds how it ended.

Idempotent by directory. Cancelling a follower leaves the attempt running. What proves death: the journal says that it
started, the lock is free, and no end was written; or the machine booted since (I4).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runyard.host import journal
from runyard.host.attempt_directory import JOURNAL, AttemptDirectory, StopRequest
from runyard.host.cgroups import AttemptCgroup
from runyard.host.journal import JournalReader, Record
from runyard.host.journal_watch import JournalWatch, JournalWatches
from runyard.host.linux import boot_id, boottime
from runyard.host.plan import Plan
from runyard.host.zygote_client import Zygote
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, Usage, lost
from runyard.model.secret import SecretValue

TIMER_S = 1.0
STOP_MARGIN_S = 90.0  # draining, killing and what is collected after a stop take less
LIMITS_MARGIN_S = 180.0
LARGE_PLAN_BYTES = 64 * 1024
OnRecord = Callable[[Record], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    outcome: Outcome
    outputs: Mapping[str, str] = field(default_factory=dict)


class AttemptRunner:
    """Runs the attempts of one service process. Shims end by themselves; one that stands still is killed
    `stop_margin_s` after the grace of a stop, or `limits_margin_s` after all its limits together."""

    def __init__(
        self,
        zygote: Zygote,
        *,
        stop_margin_s: float = STOP_MARGIN_S,
        limits_margin_s: float = LIMITS_MARGIN_S,
    ) -> None:
        self._zygote = zygote
        self._backstop = _Backstop(stop_margin_s=stop_margin_s, limits_margin_s=limits_margin_s)
        self._watches = JournalWatches()

    async def run(
        self,
        directory: AttemptDirectory,
        make_plan: Callable[[], Plan],
        on_record: OnRecord,
        *,
        secrets: Sequence[SecretValue] = (),
    ) -> AttemptEnd:
        """The attempt's end. `make_plan` is asked only where the directory has none yet; `on_record` gets each record
        of the journal in order, from its beginning; `secrets` are for the shim, if one is yet to be started. Raises
        Unreachable where no shim could be started."""
        if not directory.exists:
            await _create(directory, make_plan())
        watch = self._watches.add(directory.path)
        follower = _Follower(directory, self._zygote, watch, on_record, self._backstop, secrets)
        try:
            return await follower.follow()
        finally:
            follower.close()
            watch.close()

    def close(self) -> None:
        self._watches.close()


async def _create(directory: AttemptDirectory, plan: Plan) -> None:
    """A big plan is written off the loop; a small one costs less than the way to a thread."""
    if sum(len(file.content_base64) for file in plan.files) > LARGE_PLAN_BYTES:
        await asyncio.to_thread(directory.create, plan)
    else:
        directory.create(plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backstop:
    """How long a shim may go on beyond what it was told."""

    stop_margin_s: float
    limits_margin_s: float

    def overdue(self, plan: Plan, stop: StopRequest | None, now: float, *, was_seen: bool) -> Outcome | None:
        """What becomes of an attempt whose shim lives at `now` (CLOCK_BOOTTIME); None: it may go on."""
        if stop is not None and now > stop.asked_at + stop.grace_s + self.stop_margin_s:
            return _killed(OutcomeKind.CANCELED, ReasonCode.CANCELED, "canceled on request", was_seen)
        limits_s = plan.start_limit_s + plan.run_limit_s + plan.kill_grace_s + plan.collect_limit_s
        if now <= plan.created_boottime + limits_s + self.limits_margin_s:
            return None
        if not was_seen:
            return lost("it stood still before its first step", was_seen=False)
        words = f"ran longer than limits.run = {plan.run_limit_s:g} s"
        return _killed(OutcomeKind.TIMED_OUT, ReasonCode.RUN_TIMEOUT, words, was_seen)


def _killed(kind: OutcomeKind, code: ReasonCode, words: str, was_seen: bool) -> Outcome:
    message = f"{words}; its process stood still and was killed"
    return Outcome(kind=kind, reason=Reason(code=code, message=message), was_seen=was_seen)


class _Follower:
    def __init__(
        self,
        directory: AttemptDirectory,
        zygote: Zygote,
        watch: JournalWatch,
        on_record: OnRecord,
        backstop: _Backstop,
        secrets: Sequence[SecretValue],
    ) -> None:
        self._directory = directory
        self._zygote = zygote
        self._watch = watch
        self._on_record = on_record
        self._backstop = backstop
        self._secrets = secrets
        self._plan: Plan | None = None
        self._overdue: Outcome | None = None
        self._looked_at = boottime()
        self._reader = JournalReader(directory.file(JOURNAL))
        self._started: Record | None = None
        self._was_seen = False
        self._ended: Record | None = None
        self._pidfd = -1

    async def follow(self) -> AttemptEnd:
        while True:
            if await self._read():
                break
            if self._started is None:
                end = await self._start()
            else:
                end = await self._check_alive()
            if end is not None:
                return end
            await self._watch.wait(TIMER_S)
        assert self._ended is not None
        return to_end(self._ended["outcome"])

    def close(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    async def _read(self) -> bool:
        for record in self._reader.read():
            match record["what"]:
                case journal.STARTED:
                    self._started = record
                case journal.STEP_STARTED:
                    self._was_seen = True
                case journal.ENDED:
                    self._ended = record
                case _:
                    pass
            await self._on_record(record)
        return self._ended is not None

    async def _start(self) -> AttemptEnd | None:
        """No shim wrote anything yet: starts one. A lock that is held is one that is about to write."""
        if self._directory.is_alive():
            return None
        if self._directory.read_plan().boot_id != boot_id():
            return AttemptEnd(outcome=lost("the host was restarted before it began", was_seen=False))
        self._watch.changed.clear()
        await self._zygote.start_shim(self._directory.path, self._secrets)
        return None

    async def _check_alive(self) -> AttemptEnd | None:
        if self._directory.is_alive():
            self._watch_process()
            await self._kill_overdue()
            return None
        if await self._read():  # it ended between the two looks
            assert self._ended is not None
            return to_end(self._ended["outcome"])
        await asyncio.to_thread(self._kill_leftovers)
        assert self._started is not None
        if self._overdue is not None:
            return AttemptEnd(outcome=self._overdue)
        restarted = self._started["boot_id"] != boot_id()
        why = "the host was restarted" if restarted else "the process that ran it was killed"
        return AttemptEnd(outcome=lost(why, was_seen=self._was_seen))

    async def _kill_overdue(self) -> None:
        """A shim that stands still is killed; the free lock is then seen as any other death, with our word for it."""
        now = boottime()
        if now < self._looked_at + TIMER_S:
            return  # a short attempt never pays for it
        self._looked_at = now
        if self._plan is None:
            plan = await asyncio.to_thread(self._directory.read_plan)
            self._plan = replace(plan, files=())  # which may be large
        stop = self._directory.stop_request()
        overdue = self._backstop.overdue(self._plan, stop, now, was_seen=self._was_seen)
        if overdue is not None:
            self._overdue = overdue
            if await asyncio.to_thread(self._directory.kill_shim):
                self._watch.changed.set()

    def _watch_process(self) -> None:
        """The shim's end wakes us too. Only a hint as well: the lock is what counts."""
        if self._pidfd >= 0 or self._started is None:
            return
        try:
            self._pidfd = os.pidfd_open(self._started["pid"])
        except OSError:
            return
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_process_end)

    def _on_process_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._watch.changed.set()

    def _kill_leftovers(self) -> None:
        AttemptCgroup(self._directory.read_plan().cgroups, self._directory.name).kill()


def to_end(document: Mapping[str, object]) -> AttemptEnd:
    """The journal's outcome document as values."""
    fields = dict(document)
    reason, usage = fields.get("reason"), fields.get("usage")
    outcome = Outcome(
        kind=OutcomeKind(str(fields["kind"])),
        reason=_reason(reason) if isinstance(reason, dict) else None,
        exit_code=_integer(fields.get("exit_code")),
        signal=_integer(fields.get("signal")),
        usage=Usage(**usage) if isinstance(usage, dict) else Usage(),
        was_seen=bool(fields.get("was_seen", False)),
    )
    outputs = fields.get("outputs")
    return AttemptEnd(outcome=outcome, outputs=outputs if isinstance(outputs, dict) else {})


def _reason(document: Mapping[str, str | None]) -> Reason:
    return Reason(
        code=ReasonCode(str(document["code"])), message=str(document["message"]), step=document.get("step")
    )


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None
