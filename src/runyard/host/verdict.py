"""From how a step ended to the attempt's outcome, as the plain document that the journal holds. Pure."""

from __future__ import annotations

import signal
from typing import Any

from runyard.host.cgroups import Counters
from runyard.host.step import CANCELED, DISK, RUN_TIMEOUT, SERVICE, START_TIMEOUT, STEP_TIMEOUT, ProgramEnd

Verdict = dict[str, Any]
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def succeeded() -> Verdict:
    return {"kind": "succeeded", "exit_code": 0}


def failed(
    code: str,
    message: str,
    *,
    step: str | None = None,
    exit_code: int | None = None,
    signal_number: int | None = None,
) -> Verdict:
    return _verdict("failed", code, message, step, exit_code=exit_code, signal=signal_number)


def canceled(step: str | None) -> Verdict:
    return _verdict("canceled", "canceled", "canceled on request", step)


def timed_out(code: str, limit_s: float, step: str | None) -> Verdict:
    what = {
        START_TIMEOUT: f"the first step did not start within limits.start = {limit_s:g} s",
        RUN_TIMEOUT: f"ran longer than limits.run = {limit_s:g} s",
        STEP_TIMEOUT: f"step '{step}' ran longer than its timeout of {limit_s:g} s",
    }[code]
    return _verdict("timed_out", code, what, step)


def lost(code: str, message: str, *, step: str | None = None) -> Verdict:
    return _verdict("lost", code, message, step)


def of_step(
    step: str, end: ProgramEnd, *, before: Counters, after: Counters, limits: dict[str, Any], command: str
) -> Verdict | None:
    """What a step's end makes of the attempt; None: it succeeded. `limits` holds memory_bytes, pids_max and, by the
    name of each time-out, its seconds."""
    if end.why == CANCELED:
        return canceled(step)
    if end.why in (STEP_TIMEOUT, RUN_TIMEOUT, START_TIMEOUT):
        return timed_out(end.why, limits[end.why], step)
    if end.why == DISK:
        words = f"step '{step}': {end.words}" if end.words else "the disk that holds the logs is full"
        return failed("disk", words, step=step)
    if end.why == SERVICE:
        return failed(SERVICE, end.words, step=step)
    if end.setup_error is not None:
        return _not_started(step, end.setup_error, command)
    if end.exit_code == 0:
        return None
    fields: dict[str, Any] = {"step": step, "exit_code": end.exit_code, "signal_number": end.signal}
    if after.oom_kills > before.oom_kills:
        return failed("memory", f"step '{step}' used more memory than {_memory(limits)}", **fields)
    if after.pids_refused > before.pids_refused:
        return failed("pids", f"step '{step}' needed more than {limits.get('pids_max')} processes", **fields)
    if end.signal == signal.SIGXFSZ:
        return failed("disk", f"step '{step}' wrote a file larger than its limit of disk", **fields)
    if end.signal is not None:
        return failed("signal", f"step '{step}' was killed by {_signal_name(end.signal)}", **fields)
    return failed("exit", f"step '{step}' exited with {end.exit_code}", **fields)


def _not_started(step: str, error: str, command: str) -> Verdict:
    words = error.removeprefix("bwrap: ").removeprefix("setup: ")
    if words.startswith("Can't chdir"):
        return failed("command", f"step '{step}': {words}", step=step, exit_code=NOT_EXECUTABLE)
    if words != error and not words.startswith("execvp"):
        return lost("isolation", f"step '{step}': its place could not be made: {words}", step=step)
    reason = error.rpartition(": ")[2]
    code = NOT_FOUND if reason == "No such file or directory" else NOT_EXECUTABLE
    word = "was not found" if code == NOT_FOUND else f"cannot be executed: {reason}"
    return failed("command", f"step '{step}': the command {command!r} {word}", step=step, exit_code=code)


def _verdict(kind: str, code: str, message: str, step: str | None, **fields: Any) -> Verdict:
    reason = {"code": code, "message": message, "step": step}
    return {"kind": kind, "reason": reason, **fields}


def _memory(limits: dict[str, Any]) -> str:
    size = limits.get("memory_bytes")
    return "the host had" if size is None else f"requirements.memory = {size / (1 << 20):g}Mi"


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"
