"""What becomes of a job when an attempt of it ends: final, or queued again, and from when on."""

from __future__ import annotations

import hashlib

from runyard.model.job import Job, JobState
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode
from runyard.model.verdict import Final, Requeue, RetryCost, Verdict

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 300.0
UNSEEN_TRIES_MAX = 10

_FINAL_OF = {
    OutcomeKind.SUCCEEDED: JobState.SUCCEEDED,
    OutcomeKind.FAILED: JobState.FAILED,
    OutcomeKind.TIMED_OUT: JobState.TIMED_OUT,
    OutcomeKind.CANCELED: JobState.CANCELED,
    OutcomeKind.LOST: JobState.LOST,
    OutcomeKind.REFUSED: JobState.REFUSED,
}


def decide(job: Job, outcome: Outcome, now: float) -> Verdict:
    """The verdict on a job whose attempt ended with `outcome`.

    A cancel that was asked for forbids retries; what happened anyway (success, failure) is kept as it was. Success,
    cancel, refusal and time-outs are final. A lost attempt that was seen costs one of `retry.infrastructure`, a failed
    one costs one of `retry.failure`; one that never started costs neither and keeps its place, up to a bound (I8).
    """
    final = Final(state=_FINAL_OF[outcome.kind], reason=outcome.reason)
    if job.cancel_requested_at is not None:
        return _canceled(outcome) if outcome.kind is OutcomeKind.LOST else final
    match outcome.kind:
        case OutcomeKind.LOST if not outcome.was_seen:
            return _after_unseen(job, outcome, now)
        case OutcomeKind.LOST if job.infrastructure_failures < job.spec.retry.infrastructure:
            return _again(job, outcome, RetryCost.INFRASTRUCTURE, tries=job.infrastructure_failures, now=now)
        case OutcomeKind.FAILED if job.failures < job.spec.retry.failure:
            return _again(job, outcome, RetryCost.FAILURE, tries=job.failures, now=now)
        case _:
            return final


def backoff_s(name: str, tries: int) -> float:
    """Seconds to wait after `tries` earlier ones: doubling from 1 s to 300 s, spread by up to a quarter by the hash of
    `name`, so that jobs that failed together do not return together."""
    base = min(BACKOFF_FIRST_S * 2.0 ** min(tries, 30), BACKOFF_MAX_S)
    digest = hashlib.sha256(f"{name}/{tries}".encode()).digest()
    return base * (1 + int.from_bytes(digest[:4], "big") / 2**32 / 4)


def _again(job: Job, outcome: Outcome, cost: RetryCost, *, tries: int, now: float) -> Requeue:
    return Requeue(
        cost=cost, keeps_place=False, reason=outcome.reason, not_before=now + backoff_s(job.uid, tries)
    )


def _after_unseen(job: Job, outcome: Outcome, now: float) -> Verdict:
    if job.unseen_tries + 1 >= UNSEEN_TRIES_MAX:
        last = outcome.reason.message if outcome.reason else "no reason given"
        return Final(
            state=JobState.REFUSED,
            reason=Reason(
                code=ReasonCode.PROVIDER,
                message=f"{UNSEEN_TRIES_MAX} attempts could not be started; the last: {last}",
            ),
        )
    return Requeue(
        cost=RetryCost.UNSEEN,
        keeps_place=True,
        reason=outcome.reason,
        not_before=now + backoff_s(job.uid, job.unseen_tries),
    )


def _canceled(outcome: Outcome) -> Final:
    """The place died while a cancel was under way: what was asked for is what is reported."""
    detail = f" ({outcome.reason.message})" if outcome.reason else ""
    return Final(
        state=JobState.CANCELED,
        reason=Reason(code=ReasonCode.CANCELED, message=f"canceled while its place was lost{detail}"),
    )
