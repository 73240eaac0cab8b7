"""How an attempt ended, in a closed list of words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OutcomeKind(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"
    LOST = "lost"
    REFUSED = "refused"


class ReasonCode(StrEnum):
    """The published list of why an attempt or a job ended."""

    EXIT = "exit"
    SIGNAL = "signal"
    MEMORY = "memory"
    PIDS = "pids"
    DISK = "disk"
    QUEUE_TIMEOUT = "queue_timeout"
    START_TIMEOUT = "start_timeout"
    RUN_TIMEOUT = "run_timeout"
    STEP_TIMEOUT = "step_timeout"
    COMMAND = "command"  # the step's command could not be started: not found, not executable
    IMAGE = "image"
    WORKSPACE = "workspace"
    SERVICE = "service"  # a service of the job did not become ready, or ended before the steps were done
    ARTIFACTS = "artifacts"
    SECRET = "secret"  # one that the job names is missing, or not for it
    CANCELED = "canceled"
    HOST_LOST = "host_lost"
    ISOLATION = "isolation"
    REQUIREMENTS = "requirements"
    PROVIDER = "provider"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why, for machines (`code`), for people (`message`) and where (`step` names it, None if no step was running)."""

    code: ReasonCode
    message: str
    step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an attempt used. `wall_s` runs from the first step's start to the last one's end; None is unknown."""

    wall_s: float = 0.0
    cpu_s: float | None = None
    memory_bytes_peak: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of an attempt. `exit_code` is that of the step which decided it; `signal` the number that killed it.

    `was_seen` says that the attempt was seen running: only such a one may cost a retry (I8).
    """

    kind: OutcomeKind
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    usage: Usage = Usage()
    was_seen: bool = True


def succeeded(usage: Usage | None = None) -> Outcome:
    return Outcome(kind=OutcomeKind.SUCCEEDED, exit_code=0, usage=usage or Usage())


def lost(message: str, *, was_seen: bool, usage: Usage | None = None) -> Outcome:
    """Proof of death of the place, not silence (I4)."""
    return Outcome(
        kind=OutcomeKind.LOST,
        reason=Reason(code=ReasonCode.HOST_LOST, message=message),
        usage=usage or Usage(),
        was_seen=was_seen,
    )


def refused(code: ReasonCode, message: str) -> Outcome:
    """The place will never run it; nothing was started."""
    return Outcome(kind=OutcomeKind.REFUSED, reason=Reason(code=code, message=message), was_seen=False)
