"""From what was seen of an attempt to its outcome, and to the words for why it has not started yet. Pure.

The truth of a step is its container's end as the kubelet tells it, for no other step can forge that. What step.sh left
in the termination message is believed only together with the exit code that step.sh alone ends with: it writes the
message after it has killed whatever the step left, so only a step that took step.sh down with it can have written
another, and then the code is another.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runyard.model.job import JobSpec, Step, StepCondition
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, Usage, lost, succeeded
from runyard.providers.kubernetes.sighting import Ended, Running, Sighting, Waiting

OVERDUE_S = 60.0  # more than the grace: what step.sh did not end by then, the provider must
TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND = 124, 126, 127
SKIPPED, UNSTARTED, STOPPED, STEP_TIMEOUT, RUN_TIMEOUT = (
    "skipped",
    "unstarted",
    "stopped",
    "step_timeout",
    "run_timeout",
)
_COMMAND = {
    "not_found": "was not found",
    "not_executable": "cannot be executed: Permission denied",
    "no_directory": "",
}
_FINAL_WAITS = {"InvalidImageName": ReasonCode.IMAGE}
_OWN_PHASES = ("", "ContainerCreating", "PodInitializing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What the provider knows besides. `is_stopped`: the Secret carries the mark of a stop. `was_created`: our Job is
    known to have been there, so its absence in a complete answer is its end. `was_seen`: an earlier look saw a step
    run. `grace_s` is the pool's kill grace."""

    is_stopped: bool = False
    was_created: bool = False
    was_seen: bool = False
    grace_s: float = 10.0


def judge(
    sighting: Sighting, spec: JobSpec, *, marks: Marks, now: float, suspended_s: float
) -> Outcome | None:
    """The outcome, or None while there is none. `now` and all times in epoch seconds.

    Where `sighting.is_alive` the outcome is one that the provider must bring about: end the attempt (delete its Job),
    then tell it. What the steps made of it comes first, then a stop that was asked for, then what the cluster did.
    """
    judged = _judge_steps(sighting, spec)
    seen = was_seen(sighting, marks=marks)
    if judged.is_over and judged.outcome is not None:
        return _with(judged.outcome, sighting, seen=True)
    if marks.is_stopped and not sighting.is_alive:
        return _with(_canceled(judged.step), sighting, seen=seen)
    disrupted = _disruption(sighting, spec, marks=marks, seen=seen, step=judged.step)
    if disrupted is not None:
        return _with(disrupted, sighting, seen=seen)
    if judged.failure is not None and _is_pod_over(sighting):
        return _with(judged.failure, sighting, seen=True)
    outcome = _prepare_failure(sighting, spec) or _final_wait(sighting, spec)
    if outcome is None:
        outcome = _overdue(sighting, spec, marks=marks, now=now) or _limit(
            sighting, spec, now=now, suspended_s=suspended_s, seen=seen
        )
    return None if outcome is None else _with(outcome, sighting, seen=seen)


def was_seen(sighting: Sighting, *, marks: Marks) -> bool:
    """Whether a step's command ran: the container of the first runs, or one ended otherwise than unstarted."""
    if marks.was_seen:
        return True
    if sighting.steps and isinstance(sighting.steps[0], Running):
        return True
    return any(isinstance(each, Ended) and _did_run(each) for each in sighting.steps)


def why_waiting(sighting: Sighting, spec: JobSpec) -> str | None:
    """Why no step runs yet, in the cluster's own words where it has any, for people to read; None once one does."""
    if sighting.is_suspended:
        return "queued in the cluster: the Job is suspended"
    if not sighting.has_pod:
        return "waiting for the cluster to make the pod" if sighting.has_job else None
    if sighting.unschedulable:
        return f"not scheduled: {sighting.unschedulable}"
    if not sighting.is_scheduled:
        return "waiting for the scheduler"
    if isinstance(sighting.prepare, Running):
        return "preparing"
    if isinstance(sighting.prepare, Waiting):
        return _container_words("the platform's image", sighting.prepare) or "starting the pod"
    for step, state in zip(spec.steps, sighting.steps, strict=False):
        if isinstance(state, Waiting):
            return _container_words(
                f"step '{step.name}' ({spec.image_of(step) or 'default image'})", state
            ) or (f"starting step '{step.name}'")
    return None


def message_end(message: str) -> dict[str, Any]:
    """What a container of ours wrote at its end; empty where it is none of ours. One that the kubelet cut short still
    tells its word."""
    try:
        document = json.loads(message)
    except ValueError:
        word, closed, _ = message.removeprefix('{"end":"').partition('"')
        return {"end": word} if message.startswith('{"end":"') and closed else {}
    return document if isinstance(document, dict) else {}


# -- steps ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """`outcome` where all have ended and a place did not take them down; `failure` is the first that decided; `step`
    the last one that began."""

    is_over: bool
    outcome: Outcome | None = None
    failure: Outcome | None = None
    step: str | None = None


def _judge_steps(sighting: Sighting, spec: JobSpec) -> _Steps:
    failure: Outcome | None = None
    last: str | None = None
    was_stopped = False
    for step, state in zip(spec.steps, sighting.steps, strict=False):
        if not isinstance(state, Ended):
            if isinstance(state, Running) and not was_stopped:
                last = last or step.name
            continue
        end = _end_of(state)
        if end in (STOPPED, UNSTARTED):
            was_stopped = True
        elif end == SKIPPED:
            if failure is None and step.condition is not StepCondition.FAILURE and not was_stopped:
                failure = _not_run(step)
        else:
            last = step.name
            failure = failure or _step_failure(step, state, spec)
    is_over = len(sighting.steps) == len(spec.steps) and sighting.have_steps_ended and not was_stopped
    outcome = (failure or succeeded()) if is_over else None
    return _Steps(is_over=is_over and not _was_killed(sighting), outcome=outcome, failure=failure, step=last)


def _end_of(state: Ended) -> str:
    """The word for it that the exit code bears out."""
    end = message_end(state.message).get("end")
    if state.reason == "OOMKilled" and state.exit_code not in (0, TIMED_OUT):
        return "exit"
    fits = {
        SKIPPED: state.exit_code == 0,
        UNSTARTED: state.exit_code == 128 + signal.SIGTERM,
        STOPPED: state.exit_code != 0,
        STEP_TIMEOUT: state.exit_code == TIMED_OUT,
        RUN_TIMEOUT: state.exit_code == TIMED_OUT,
        "not_found": state.exit_code == NOT_FOUND,
        "not_executable": state.exit_code == NOT_EXECUTABLE,
        "no_directory": state.exit_code == NOT_EXECUTABLE,
    }
    return str(end) if fits.get(str(end)) else "exit"


def _did_run(state: Ended) -> bool:
    return _end_of(state) not in (SKIPPED, UNSTARTED)


def _step_failure(step: Step, state: Ended, spec: JobSpec) -> Outcome | None:
    """As host/verdict.py has it on a host of ours."""
    end, code = _end_of(state), state.exit_code
    name = f"step '{step.name}'"
    if end == STEP_TIMEOUT:
        limit = "" if step.timeout_s is None else f" of {step.timeout_s:g} s"
        return _timed_out(ReasonCode.STEP_TIMEOUT, f"{name} ran longer than its timeout{limit}", step.name)
    if end == RUN_TIMEOUT:
        return _timed_out(
            ReasonCode.RUN_TIMEOUT, f"ran longer than limits.run = {spec.limits.run_s:g} s", step.name
        )
    if end in _COMMAND:
        words = f"the command {step.command[0]!r} {_COMMAND[end]}"
        if end == "no_directory":
            words = f"its directory {step.dir or spec.dir or '.'!r} cannot be entered"
        return _failed(ReasonCode.COMMAND, f"{name}: {words}", step.name, code)
    if code == 0:
        return None
    number = code - 128 if 128 < code < 128 + signal.NSIG else None
    if state.is_oom:
        size = f"requirements.memory = {spec.requirements.memory_bytes / (1 << 20):g}Mi"
        return _failed(ReasonCode.MEMORY, f"{name} used more memory than {size}", step.name, code, number)
    if number is not None:
        return _failed(
            ReasonCode.SIGNAL, f"{name} was killed by {_signal_name(number)}", step.name, code, number
        )
    return _failed(ReasonCode.EXIT, f"{name} exited with {code}", step.name, code)


def _not_run(step: Step) -> Outcome:
    words = (
        f"step '{step.name}' did not run although no step before it failed: a result was lost"
        " (the pod's disk is full, or a step changed its own result)"
    )
    return _failed(ReasonCode.INTERNAL, words, step.name)


# -- the place ------------------------------------------------------------------------------------------------------


def _was_killed(sighting: Sighting) -> bool:
    """The pod was taken down, so that a step which ended by a signal says nothing of the step."""
    if not (sighting.pod_reason or sighting.disruption or sighting.is_deleted):
        return False
    return any(
        isinstance(each, Ended) and (each.exit_code > 128 or _end_of(each) in (STOPPED, UNSTARTED))
        for each in sighting.steps
    )


def _is_pod_over(sighting: Sighting) -> bool:
    return sighting.has_pod and sighting.pod_phase in ("Failed", "Succeeded")


def _disruption(
    sighting: Sighting, spec: JobSpec, *, marks: Marks, seen: bool, step: str | None
) -> Outcome | None:
    """What the cluster did to it. An eviction for the attempt's own use of disk is the job's failure; every other is
    the place's."""
    reason, words = sighting.disruption or (sighting.pod_reason, sighting.pod_message)
    is_over = _is_pod_over(sighting) or sighting.is_deleted
    if sighting.pod_reason == "Evicted" and _exceeds_own_disk(sighting):
        return _failed(ReasonCode.DISK, _disk_words(sighting, step), step)
    if is_over and (sighting.disruption or sighting.pod_reason):
        what = _DISRUPTIONS.get(reason, f"the pod was ended by the cluster ({reason})")
        where = f" (node {sighting.node})" if sighting.node else ""
        return lost(f"{what}{where}{': ' + words if words else ''}", was_seen=seen)
    if sighting.is_deleted and not sighting.is_alive:
        return lost("the pod was deleted, and not by Runyard", was_seen=seen)
    if sighting.is_suspended and seen:
        return lost("the Job was suspended while it ran (preempted by the cluster's queue)", was_seen=seen)
    if not sighting.has_job:
        if not marks.was_created:
            return None
        return lost("the Job was deleted, and not by Runyard", was_seen=seen)
    if sighting.job_failure is not None and not sighting.has_pod:
        return _job_failure(sighting.job_failure, spec, seen=seen, step=step)
    if _is_pod_over(sighting) and not isinstance(sighting.prepare, Ended):
        return lost(f"the pod failed before it started: {words or sighting.pod_phase}", was_seen=seen)
    return None


_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted by a pod of higher priority",
    "PreemptionByKubeScheduler": "preempted by a pod of higher priority",
    "Preempting": "preempted by a pod of higher priority",
    "DeletionByTaintManager": "its node was tainted and the pod deleted",
    "EvictionByEvictionAPI": "evicted, as when a node is drained",
    "DeletionByPodGC": "its node is gone",
    "NodeLost": "its node is gone",
    "TerminationByKubelet": "the node ended the pod",
    "Evicted": "the node evicted the pod",
    "Shutdown": "its node was shut down",
    "NodeShutdown": "its node was shut down",
    "Terminated": "its node was shut down",
}


def _exceeds_own_disk(sighting: Sighting) -> bool:
    """An eviction for pressure on the node is marked as a disruption; older servers tell the two by words alone."""
    return (
        sighting.disruption is None and "exceed" in sighting.pod_message and "limit" in sighting.pod_message
    )


def _disk_words(sighting: Sighting, step: str | None) -> str:
    words = sighting.pod_message.strip().rstrip(".")
    return f"step '{step}': {words}" if step else words


def _job_failure(failure: tuple[str, str], spec: JobSpec, *, seen: bool, step: str | None) -> Outcome:
    reason, words = failure
    if reason == "DeadlineExceeded":
        message = f"the cluster ended the Job: {words or reason}"
        return _timed_out(ReasonCode.RUN_TIMEOUT if seen else ReasonCode.START_TIMEOUT, message, step)
    return lost(f"the Job failed ({reason}) and its pod is gone: {words}", was_seen=seen)


def _prepare_failure(sighting: Sighting, spec: JobSpec) -> Outcome | None:
    state = sighting.prepare
    if not isinstance(state, Ended) or state.exit_code == 0:
        return None
    said = message_end(state.message)
    words = str(said.get("words") or "the workspace could not be made")
    if said.get("end") == "workspace":
        return _failed(ReasonCode.WORKSPACE, words, None)
    if said.get("end") == "start_timeout":
        return _start_timeout(spec, "the workspace took longer than that")
    if state.is_oom:
        return _failed(ReasonCode.MEMORY, "making the workspace used more memory than the job has", "setup")
    return lost(f"preparing the pod failed with exit code {state.exit_code}: {words}", was_seen=False)


def _final_wait(sighting: Sighting, spec: JobSpec) -> Outcome | None:
    """What never becomes better, however long it is waited for."""
    for step, state in zip(spec.steps, sighting.steps, strict=False):
        if isinstance(state, Waiting) and state.reason in _FINAL_WAITS:
            words = f"step '{step.name}': {state.message or state.reason}"
            return _failed(_FINAL_WAITS[state.reason], words, step.name)
    return None


# -- limits ---------------------------------------------------------------------------------------------------------


def _limit(
    sighting: Sighting, spec: JobSpec, *, now: float, suspended_s: float, seen: bool
) -> Outcome | None:
    """The clocks of what has not started. A suspended Job has one of its own, and the other does not run meanwhile."""
    if seen or not sighting.has_job:
        return None
    if sighting.is_suspended:
        if sighting.created_at is None or now - sighting.created_at < suspended_s:
            return None
        words = f"the cluster held the Job back for longer than the pool's suspended_max = {suspended_s:g} s"
        return _timed_out(ReasonCode.START_TIMEOUT, words, None)
    if sighting.start_clock is None or now - sighting.start_clock < spec.limits.start_s:
        return None
    return _start_timeout(spec, why_waiting(sighting, spec))


def _overdue(sighting: Sighting, spec: JobSpec, *, marks: Marks, now: float) -> Outcome | None:
    """Only a step that got rid of step.sh's clock comes to this: it is ended from here."""
    spare = OVERDUE_S + marks.grace_s
    first: float | None = None
    for index, (step, state) in enumerate(zip(spec.steps, sighting.steps, strict=False)):
        began = sighting.step_began_at(index)
        if began is None or (isinstance(state, Ended) and not _did_run(state)):
            continue
        first = began if first is None else first
        if not isinstance(state, Running):
            continue
        if now - first > spec.limits.run_s + spare:
            words = f"ran longer than limits.run = {spec.limits.run_s:g} s"
            return _timed_out(ReasonCode.RUN_TIMEOUT, words, step.name)
        if step.timeout_s is not None and now - began > step.timeout_s + spare:
            words = f"step '{step.name}' ran longer than its timeout of {step.timeout_s:g} s"
            return _timed_out(ReasonCode.STEP_TIMEOUT, words, step.name)
    return None


# -- outcomes -------------------------------------------------------------------------------------------------------


def _with(outcome: Outcome, sighting: Sighting, *, seen: bool) -> Outcome:
    return Outcome(
        kind=outcome.kind,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        usage=Usage(wall_s=_wall_s(sighting)),
        was_seen=seen,
    )


def _wall_s(sighting: Sighting) -> float:
    ran = [each for each in sighting.steps if isinstance(each, Ended) and _did_run(each)]
    began: Sequence[float] = [each.began_at for each in ran if each.began_at is not None]
    ended: Sequence[float] = [each.at for each in ran if each.at is not None]
    return max(0.0, max(ended) - min(began)) if began and ended else 0.0


def _failed(
    code: ReasonCode, message: str, step: str | None, exit_code: int | None = None, number: int | None = None
) -> Outcome:
    reason = Reason(code=code, message=message, step=step)
    return Outcome(kind=OutcomeKind.FAILED, reason=reason, exit_code=exit_code, signal=number)


def _timed_out(code: ReasonCode, message: str, step: str | None) -> Outcome:
    return Outcome(kind=OutcomeKind.TIMED_OUT, reason=Reason(code=code, message=message, step=step))


def _start_timeout(spec: JobSpec, why: str | None) -> Outcome:
    words = f"the first step did not start within limits.start = {spec.limits.start_s:g} s"
    return _timed_out(ReasonCode.START_TIMEOUT, f"{words}: {why}" if why else words, None)


def _canceled(step: str | None) -> Outcome:
    reason = Reason(code=ReasonCode.CANCELED, message="canceled on request", step=step)
    return Outcome(kind=OutcomeKind.CANCELED, reason=reason)


def _container_words(what: str, state: Waiting) -> str:
    """Empty where the cluster is only on its way."""
    if state.reason in _OWN_PHASES:
        return ""
    return f"{what}: {state.reason}{': ' + state.message if state.message else ''}"


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"
