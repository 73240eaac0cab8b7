"""Documents of a cluster, valid by default: a Job, its pod, containers as a kubelet tells of them."""

from __future__ import annotations

from typing import Any

BEGAN, ENDED = "2026-11-24T12:00:00Z", "2026-11-24T12:00:05Z"


def ended(
    code: int, end: str = "exit", *, reason: str | None = None, message: str | None = None
) -> dict[str, Any]:
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": f'{{"end":"{end}"}}' if message is None else message,
            "startedAt": BEGAN,
            "finishedAt": ENDED,
        }
    }


def running() -> dict[str, Any]:
    return {"running": {"startedAt": BEGAN}}


def waiting(reason: str = "PodInitializing", message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def job(*, suspend: bool = False, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "runyard-abcdefghij234567-1", "creationTimestamp": BEGAN},
        "spec": {"suspend": suspend},
        "status": status,
    }


def pod(
    *steps: dict[str, Any],
    prepare: dict[str, Any] | None = None,
    collect: dict[str, Any] | None = None,
    is_deleted: bool = False,
    **status: Any,
) -> dict[str, Any]:
    states = {f"step-{index:03d}": state for index, state in enumerate(steps)}
    if collect is not None:
        states["collect"] = collect
    metadata: dict[str, Any] = {"name": "runyard-abcdefghij234567-1-x"}
    if is_deleted:
        metadata["deletionTimestamp"] = ENDED
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node-1", "containers": [{"name": name} for name in states]},
        "status": {
            "phase": "Running",
            "initContainerStatuses": [{"name": "prepare", "state": ended(0) if prepare is None else prepare}],
            "containerStatuses": [{"name": name, "state": state} for name, state in states.items()],
            **status,
        },
    }


def condition(kind: str, reason: str = "", message: str = "", status: str = "True") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}
