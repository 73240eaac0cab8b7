"""What a command's end says in a number.

`run` follows docker and timeout(1); every other command has five words. docs/cli.md publishes both.
"""

from __future__ import annotations

from runyard.sdk.errors import (
    Gone,
    NotConfigured,
    NotFound,
    RunyardApiError,
    ServerFault,
    Unreachable,
)

DONE = 0
FAILED = 1
WRONG_USE = 2
UNREACHABLE = 3
REFUSED = 4

RUN_TIMED_OUT = 124
RUN_OF_RUNYARD = 125
RUN_CANCELED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: what a pipeline sees of `yes | head -1` too."""


class UsageError(Exception):
    """Wrong use that only the command itself can see; the message says what would be right."""


def exit_code_of_job(state: str, *, exit_code: int | None, signal: int | None) -> int:
    """Of `run`: the job's own where it has one, else what stands for how it ended."""
    match state:
        case "succeeded":
            return DONE
        case "timed_out":
            return RUN_TIMED_OUT
        case "canceled":
            return RUN_CANCELED
        case "failed" if signal:
            return 128 + signal
        case "failed" if exit_code:
            return exit_code
        case _:
            return RUN_OF_RUNYARD


def exit_code_of_error(error: RunyardApiError) -> int:
    match error:
        case Unreachable():
            return UNREACHABLE
        case NotConfigured(code="no_service"):
            return UNREACHABLE
        case ServerFault(status=502 | 503 | 504):
            return UNREACHABLE
        case NotFound() | Gone() | ServerFault():
            return FAILED
        case NotConfigured() | RunyardApiError(status=400 | 401 | 403 | 409 | 413 | 415 | 422 | 429):
            return REFUSED
        case _:
            return FAILED
