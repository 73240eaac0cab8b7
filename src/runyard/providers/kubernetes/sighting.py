"""What the cluster says of an attempt, from the documents of its Job and its pod. Pure; nothing is concluded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runyard.providers.kubernetes.layout import COLLECT, PREPARE, step_index

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Not started. `reason` is the cluster's own word (`PodInitializing`, `ImagePullBackOff`), empty where none."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Its container runs. A step may still wait for the one before it. `since` in epoch seconds (whole ones)."""

    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """`message` is what it left in its termination message; `reason` the cluster's word (`Completed`, `OOMKilled`)."""

    exit_code: int
    signal: int | None = None
    reason: str = ""
    message: str = ""
    began_at: float | None = None
    at: float | None = None

    @property
    def is_oom(self) -> bool:
        return self.reason == "OOMKilled" and self.exit_code != 0


ContainerSighting = Waiting | Running | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One look at an attempt's Job and pod.

    `has_job`, `has_pod`: whether each was there. `steps` by index from 0, as far as the pod names them. `start_clock`:
    since when the start limit counts (the Job's startTime, which the cluster sets anew after a suspension, else its
    creation), None while it is suspended. `job_failure`: reason and message of the Job's Failed condition.
    `unschedulable`: the scheduler's words. `disruption`: reason of the pod's DisruptionTarget condition, `pod_reason`
    and `pod_message` the pod's own (`Evicted`). `images` are image ids by container.
    """

    has_job: bool = False
    has_pod: bool = False
    is_suspended: bool = False
    created_at: float | None = None
    start_clock: float | None = None
    job_failure: tuple[str, str] | None = None
    pod_name: str = ""
    pod_phase: str = ""
    pod_reason: str = ""
    pod_message: str = ""
    is_scheduled: bool = False
    unschedulable: str = ""
    disruption: tuple[str, str] | None = None
    is_deleted: bool = False
    node: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    prepare: ContainerSighting = Waiting()
    steps: tuple[ContainerSighting, ...] = ()
    collect: ContainerSighting | None = None

    @property
    def is_alive(self) -> bool:
        """Whether a container of it may run, as far as this look tells."""
        if not self.has_pod or self.pod_phase in ("Succeeded", "Failed"):
            return False
        everyone = (self.prepare, *self.steps, *(() if self.collect is None else (self.collect,)))
        return any(isinstance(each, Running) for each in everyone)

    @property
    def have_steps_ended(self) -> bool:
        """Whether every step's container came to its end: now the collecting begins."""
        return bool(self.steps) and all(isinstance(each, Ended) for each in self.steps)

    def step_began_at(self, index: int) -> float | None:
        """When a step's command started (whole seconds): its container's start or, if later, the end of the one before
        it. None where it did not, or that cannot be told yet."""
        state = self.steps[index]
        began = (
            state.since
            if isinstance(state, Running)
            else state.began_at
            if isinstance(state, Ended)
            else None
        )
        if began is None or index == 0:
            return began
        before = self.steps[index - 1]
        if not isinstance(before, Ended):
            return None
        return max(began, before.at or began)


def read_sighting(job: Document | None, pod: Document | None) -> Sighting:
    """From `batch/v1` Job and `v1` Pod as the API gives them; None where there is none. Never raises: what is missing
    is taken for not said."""
    fields: dict[str, Any] = {}
    if job is not None:
        fields |= _read_job(job)
    if pod is not None:
        fields |= _read_pod(pod)
    return Sighting(**fields)


def _read_job(job: Document) -> dict[str, Any]:
    status = job.get("status") or {}
    created = seconds((job.get("metadata") or {}).get("creationTimestamp"))
    conditions = _conditions(status)
    is_suspended = bool((job.get("spec") or {}).get("suspend"))
    failed = conditions.get("Failed") or conditions.get("FailureTarget")
    return {
        "has_job": True,
        "is_suspended": is_suspended,
        "created_at": created,
        # Its controller has yet to act on a resumption while the condition stands: the clock is not set anew so far.
        "start_clock": None
        if is_suspended or "Suspended" in conditions
        else seconds(status.get("startTime")) or created,
        "job_failure": None
        if failed is None
        else (str(failed.get("reason", "")), str(failed.get("message", ""))),
    }


def _read_pod(pod: Document) -> dict[str, Any]:
    metadata, spec, status = (pod.get(part) or {} for part in ("metadata", "spec", "status"))
    conditions = _conditions(status)
    scheduled: Document = next(
        (each for each in status.get("conditions") or () if each.get("type") == "PodScheduled"), {}
    )
    disruption = conditions.get("DisruptionTarget")
    states = {
        str(each.get("name", "")): each
        for each in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    }
    named = [str(each.get("name", "")) for each in spec.get("containers") or ()]
    steps = sorted((index, name) for name in named if (index := step_index(name)) is not None)
    return {
        "has_pod": True,
        "pod_name": str(metadata.get("name", "")),
        "pod_phase": str(status.get("phase", "")),
        "pod_reason": str(status.get("reason", "")),
        "pod_message": str(status.get("message", "")),
        "is_scheduled": scheduled.get("status") == "True" or bool(spec.get("nodeName")),
        "unschedulable": str(scheduled.get("message", "")) if scheduled.get("status") == "False" else "",
        "disruption": None
        if disruption is None
        else (str(disruption.get("reason", "")), str(disruption.get("message", ""))),
        "is_deleted": bool(metadata.get("deletionTimestamp")),
        "node": str(spec.get("nodeName") or ""),
        "images": {name: str(each["imageID"]) for name, each in states.items() if each.get("imageID")},
        "prepare": _container(states.get(PREPARE)),
        "steps": tuple(_container(states.get(name)) for _, name in steps),
        "collect": _container(states.get(COLLECT)) if COLLECT in named else None,
    }


def _conditions(status: Document) -> dict[str, Document]:
    """The true ones, by type."""
    return {
        str(each.get("type", "")): each
        for each in status.get("conditions") or ()
        if each.get("status") == "True"
    }


def _container(status: Document | None) -> ContainerSighting:
    state: Document = (status or {}).get("state") or {}
    ended, running = state.get("terminated"), state.get("running")
    if ended is not None:
        return Ended(
            exit_code=int(ended.get("exitCode", 0)),
            signal=ended.get("signal") or None,
            reason=str(ended.get("reason", "")),
            message=str(ended.get("message", "")),
            began_at=seconds(ended.get("startedAt")),
            at=seconds(ended.get("finishedAt")),
        )
    if running is not None:
        return Running(since=seconds(running.get("startedAt")) or 0.0)
    waiting = state.get("waiting") or {}
    return Waiting(reason=str(waiting.get("reason", "")), message=str(waiting.get("message", "")))


def seconds(timestamp: Any) -> float | None:
    """Epoch seconds of an RFC 3339 time; None for none, and for what is no time."""
    try:
        return datetime.fromisoformat(timestamp).timestamp() if timestamp else None
    except (ValueError, TypeError):
        return None
