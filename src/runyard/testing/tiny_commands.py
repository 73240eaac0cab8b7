"""The few commands that the conformance suite runs, as shell scripts for places that run real ones, and what they
come to for places that only play."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode
from runyard.providers.port import AttemptRequest
from runyard.testing.plays import Play

EXIT_CODE = 3
OUTPUT = "value"


class TinyCommand(StrEnum):
    """Each says `began` first, so that its starts can be counted in its log."""

    SUCCEED = "echo began"
    FAIL = f"echo began; exit {EXIT_CODE}"
    WAIT = "echo began; exec sleep 600"
    STUBBORN = "trap '' TERM; echo began; while :; do sleep 0.1; done"
    GIVE_OUTPUT = f'echo began; printf {OUTPUT} > "$RUNYARD_OUTPUTS/name"'


SAID = b"began\n"


def play_of(request: AttemptRequest) -> Play:
    """What the command of a request from the suite comes to."""
    return replace(_play(TinyCommand(request.spec.steps[0].command[-1])), prints=SAID)


def _play(command: TinyCommand) -> Play:
    match command:
        case TinyCommand.SUCCEED:
            return Play(lasts_s=0.01)
        case TinyCommand.FAIL:
            reason = Reason(code=ReasonCode.EXIT, message=f"exit {EXIT_CODE}")
            failed = Outcome(kind=OutcomeKind.FAILED, exit_code=EXIT_CODE, reason=reason)
            return Play(lasts_s=0.01, outcome=failed)
        case TinyCommand.WAIT:
            return Play(lasts_s=600.0)
        case TinyCommand.STUBBORN:
            return Play(ignores_term=True)
        case TinyCommand.GIVE_OUTPUT:
            return Play(lasts_s=0.01, outputs={"name": OUTPUT})
