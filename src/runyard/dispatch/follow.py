"""One attempt from its claim to its accepted outcome: run or adopt it, settle it, clear away what it left."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from runyard.dispatch.absence import Absence
from runyard.dispatch.context import LEDGER_RETRY_S, AttemptContext
from runyard.dispatch.ownership import PoolLease
from runyard.dispatch.telemetry import EndedAttempt, NoTelemetry, Telemetry, phase_seconds, start_seconds
from runyard.ledger.port import Claimed, Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import (
    Fenced,
    InvalidRequest,
    IsolationUnavailable,
    LedgerUnavailable,
    NoCapacity,
    ProviderDenied,
    ProviderError,
    QuotaExceeded,
    SecretsUnavailable,
    Throttled,
    UserError,
)
from runyard.model.job import Job, JobState
from runyard.model.outcome import Outcome, ReasonCode, lost, refused
from runyard.model.secret import SecretValue
from runyard.policy import retry
from runyard.providers.port import AttemptRequest, Provider

CANCEL_GRACE_S = 10.0
CALL_DEADLINE_S = 30.0
"""Of each short call to a provider. One that does not answer by then is unreachable."""

PROVIDER_RETRY_FIRST_S = 0.5
PROVIDER_RETRY_MAX_S = 30.0

BeforeSettle = Callable[[AttemptKey], Awaitable[None]]
"""Sees to what must be there before the outcome tells of it: the artifacts."""

log = structlog.get_logger()


class HandOut(Protocol):
    """Resolves an attempt's secrets and notes that it gets them. Raises UserError where it may not have one,
    SecretsUnavailable where one does not open here, LedgerUnavailable."""

    async def __call__(self, job: Job, key: AttemptKey, *, pool: str) -> tuple[SecretValue, ...]: ...


class AttemptFollower:
    """Follows one attempt. Cancelling `run` leaves the attempt running (the service stops, or lost the pool)."""

    def __init__(
        self,
        claimed: Claimed,
        *,
        ledger: Ledger,
        provider: Provider,
        lease: PoolLease,
        context: AttemptContext,
        before_settle: BeforeSettle | None = None,
        telemetry: Telemetry | None = None,
        hand_out: HandOut | None = None,
        is_adopted: bool = False,
    ) -> None:
        self.job = claimed.job
        self.attempt = claimed.attempt
        self._ledger = ledger
        self._provider = provider
        self._lease = lease
        self._context = context
        self._before_settle = before_settle
        self._telemetry = telemetry or NoTelemetry()
        self._hand_out = hand_out
        self._secrets: tuple[SecretValue, ...] | None = None if claimed.job.spec.has_secrets else ()
        self._may_exist = is_adopted
        self._stop_asked = False
        self._was_seen = claimed.attempt.started_at is not None
        self._absence = Absence(
            provider, claimed.attempt.key.resource_name, apart_s=claimed.job.spec.limits.start_s
        )
        self._following: asyncio.Task[Outcome] | None = None
        self._settled_elsewhere = asyncio.Event()
        self._log = log.bind(
            job=claimed.job.id, attempt=claimed.attempt.key.resource_name, pool=claimed.attempt.pool
        )

    @property
    def key(self) -> AttemptKey:
        return self.attempt.key

    @property
    def phases(self) -> Mapping[str, float]:
        """When each phase began, as far as it got."""
        return self._context.phases

    async def run(self) -> Job | None:
        """The job after its attempt was settled; None where it was settled by an operator's word, and what was made for
        it is cleared. Raises Fenced when the pool is no longer ours."""
        if self.job.cancel_requested_at is not None:
            await self.cancel()
        outcome = await self._followed()
        await self._context.close()
        if outcome is None:
            await self.clear()  # before its slot is another's
            return None
        if self._before_settle is not None:
            await self._before_settle(self.key)
        ended_at = self._lease.now()
        job = await self._settle(outcome)
        self._telemetry.attempt_ended(self._ended(outcome, job, ended_at))
        self._log.info(
            "attempt_settled",
            outcome=outcome.kind.value,
            reason=outcome.reason.code.value if outcome.reason else None,
            state=job.state.value if job else None,
            **_retry_facts(job),
        )
        return job

    @property
    def is_waiting(self) -> bool:
        """Whether it has no outcome to settle yet."""
        return self._following is None or not self._following.done()

    def settled_elsewhere(self) -> None:
        """The ledger has its outcome, and not from here: there is nothing left to follow."""
        self._settled_elsewhere.set()
        if self._following is not None:
            self._following.cancel()

    async def cancel(self) -> None:
        """Asks the place to end the attempt, once; its outcome then comes as from any other end."""
        if self._stop_asked:
            return
        self._stop_asked = True
        self._log.info("attempt_stop_requested", grace_s=CANCEL_GRACE_S)
        await self._retrying(lambda: self._provider.stop_job(self.key, grace_s=CANCEL_GRACE_S))

    async def clear(self) -> None:
        """Destroys what was made for the attempt. Safe to repeat; a failure is left to the sweep, which says so."""
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                await self._provider.destroy_resource(self.key.resource_name)
        except (ProviderError, TimeoutError) as error:
            self._log.warning("resource_not_destroyed", error=str(error) or "no answer")
        except Exception:  # a bug in a provider, or a tree that a job made to break us: it must end here
            self._log.exception("resource_not_destroyed")

    async def _followed(self) -> Outcome | None:
        """None where somebody else's word was accepted meanwhile."""
        if self._settled_elsewhere.is_set():
            return None
        self._following = asyncio.create_task(self._outcome())
        try:
            return await self._following
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._settled_elsewhere.is_set() and task is not None and not task.cancelling():
                return None
            raise

    async def _outcome(self) -> Outcome:
        """Calls run_job until it answers: it is idempotent by name, and silence proves nothing (I4)."""
        request = request_of(self.job, self.attempt.key, slot=self.attempt.slot, epoch=self.attempt.epoch)
        delay_s = PROVIDER_RETRY_FIRST_S
        while True:
            if not self._lease.holds():
                raise Fenced(f"the lease of pool '{self.attempt.pool}' ran out")
            secrets = await self._resolved_secrets()
            if isinstance(secrets, Outcome):
                return secrets
            try:
                outcome = await self._provider.run_job(replace(request, secrets=secrets), self._context)
                return self._context.masked_outcome(outcome)
            except IsolationUnavailable as error:
                return refused(ReasonCode.ISOLATION, error.message)
            except ProviderError as error:
                refusal = self._refusal(error)
                if refusal is None:
                    self._absence.doubt()
                elif not self._may_exist or await self._absence.is_proven():
                    self._log.info("attempt_not_started", error=self._context.masked(error.message))
                    return self._context.masked_outcome(refusal)
                self._log.warning(
                    "provider_unreachable", error=self._context.masked(error.message), retry_s=delay_s
                )
            except Exception:  # a bug in a provider must not orphan the attempt: it may well be running
                self._absence.doubt()
                trace = self._context.masked(traceback.format_exc())
                self._log.error("provider_failed", retry_s=delay_s, exception=trace)
            self._may_exist = True
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, PROVIDER_RETRY_MAX_S)

    async def _resolved_secrets(self) -> tuple[SecretValue, ...] | Outcome:
        """For the next call of run_job; or the attempt's end, where it cannot have them. One that is there already has
        what it got, and is followed without: its place is not made again."""
        delay_s = PROVIDER_RETRY_FIRST_S
        while self._secrets is None:
            if not self._lease.holds():
                raise Fenced(f"the lease of pool '{self.attempt.pool}' ran out")
            try:
                self._secrets = await self._handed_out()
                self._context.hide(self._secrets)
                break
            except UserError as error:
                end = refused(ReasonCode.SECRET, error.message)
            except SecretsUnavailable as error:
                end = lost(error.message, was_seen=self._was_seen)
            except LedgerUnavailable as error:
                self._log.error("ledger_unavailable", error=error.message, retry_s=LEDGER_RETRY_S)
                await asyncio.sleep(LEDGER_RETRY_S)
                continue
            self._log.warning("secrets_not_handed_out", error=end.reason.message if end.reason else "")
            if not self._may_exist or await self._absence.is_proven():
                return end
            if self._was_seen or await self._absence.is_listed():
                return ()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, PROVIDER_RETRY_MAX_S)
        return self._secrets

    async def _handed_out(self) -> tuple[SecretValue, ...]:
        if self._hand_out is None:
            raise SecretsUnavailable("this dispatcher hands out no secrets")
        return await self._hand_out(self.job, self.key, pool=self.attempt.pool)

    def _refusal(self, error: ProviderError) -> Outcome | None:
        """What a refusal means where nothing was started; None where it is none. A later call than the first, or an
        adopting one, may be refused (throttled, capacity gone) while the attempt runs: that proves nothing (I4)."""
        match error:
            case NoCapacity() | QuotaExceeded() | Throttled() | ProviderDenied():
                return lost(error.message, was_seen=self._was_seen)
            case InvalidRequest():
                return refused(ReasonCode.PROVIDER, error.message)
            case _:
                return None

    async def _retrying(self, call: Callable[[], Awaitable[None]]) -> None:
        """Until it gets through, or the pool is another's to act for."""
        delay_s = PROVIDER_RETRY_FIRST_S
        while self._lease.holds():
            try:
                async with asyncio.timeout(CALL_DEADLINE_S):
                    await call()
                return
            except (ProviderError, TimeoutError) as error:
                self._log.warning("provider_unreachable", error=str(error) or "no answer", retry_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, PROVIDER_RETRY_MAX_S)

    def _ended(self, outcome: Outcome, job: Job | None, ended_at: float) -> EndedAttempt:
        claimed_at, phases = self.attempt.claimed_at, self._context.phases
        return EndedAttempt(
            pool=self.attempt.pool,
            queue=self.job.queue,
            outcome=outcome,
            state=job.state if job else None,
            phases=phase_seconds(claimed_at, phases, ended_at),
            start_s=start_seconds(claimed_at, phases),
            cache_uses=self._context.cache_uses,
        )

    async def _settle(self, outcome: Outcome) -> Job | None:
        while True:
            try:
                return await self._ledger.settle(
                    self._lease.fence,
                    self.key,
                    outcome,
                    decide=retry.decide,
                    phases=self._context.phases,
                    outputs=self._context.outputs,
                    placement=self._context.placement,
                )
            except LedgerUnavailable as error:
                self._log.error("ledger_unavailable", error=error.message, retry_s=LEDGER_RETRY_S)
                self._telemetry.ledger_unavailable(self.attempt.pool)
                await asyncio.sleep(LEDGER_RETRY_S)


def _retry_facts(job: Job | None) -> Mapping[str, object]:
    """The decision to try again, as the log tells it: what it has cost so far, when, and why."""
    if job is None or job.state is not JobState.QUEUED:
        return {}
    return {
        "retry_at": job.not_before,
        "infrastructure_failures": job.infrastructure_failures,
        "failures": job.failures,
        "unseen_tries": job.unseen_tries,
        "why": job.reason.message if job.reason else None,
    }


def request_of(job: Job, key: AttemptKey, *, slot: int, epoch: int) -> AttemptRequest:
    """The attempt as a provider gets it, with what Runyard adds to each step's environment."""
    env: Mapping[str, str] = {
        "RUNYARD_JOB": job.id,
        "RUNYARD_TENANT": job.tenant,
        "RUNYARD_QUEUE": job.queue,
        "RUNYARD_ATTEMPT": str(key.number),
    }
    return AttemptRequest(key=key, job_id=job.id, spec=job.spec, slot=slot, epoch=epoch, env=env)
