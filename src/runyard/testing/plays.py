"""What a command does at a place that only plays it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, Usage, succeeded
from runyard.providers.port import AttemptRequest

CANCELED = Outcome(
    kind=OutcomeKind.CANCELED, reason=Reason(code=ReasonCode.CANCELED, message="canceled by request")
)
NEVER_STARTED = Outcome(
    kind=OutcomeKind.CANCELED,
    reason=Reason(code=ReasonCode.CANCELED, message="canceled before it started"),
    was_seen=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """Ends by itself with `outcome` after `lasts_s` (None: runs until it is told)."""

    lasts_s: float | None = None
    outcome: Outcome = field(default_factory=succeeded)
    outputs: Mapping[str, str] = field(default_factory=dict)
    ignores_term: bool = False
    prints: bytes = b""

    def ends(self, request: AttemptRequest) -> list[tuple[float, Outcome]]:
        """(after how many seconds, with what): by itself, by the step's time-out, by the job's. The first counts."""
        run_s = request.spec.limits.run_s
        ends = [(run_s, _timed_out(ReasonCode.RUN_TIMEOUT, run_s))]
        step_s = request.spec.steps[0].timeout_s if request.spec.steps else None
        if step_s is not None:
            ends.append((step_s, _timed_out(ReasonCode.STEP_TIMEOUT, step_s)))
        if self.lasts_s is not None:
            ends.append((self.lasts_s, self.outcome))
        return ends


def _timed_out(code: ReasonCode, after_s: float) -> Outcome:
    return Outcome(
        kind=OutcomeKind.TIMED_OUT,
        reason=Reason(code=code, message=f"ended after {after_s:g} s"),
        usage=Usage(wall_s=after_s),
    )
