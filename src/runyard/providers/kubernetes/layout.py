"""The names that everybody agrees on who makes, reads or is a pod of Runyard's: containers, labels, folders."""

from __future__ import annotations

MANAGED_BY, RUNYARD = "app.kubernetes.io/managed-by", "runyard"
INSTALLATION, POOL, JOB, ATTEMPT = (
    "runyard.dev/installation",
    "runyard.dev/pool",
    "runyard.dev/job",
    "runyard.dev/attempt",
)
NETWORK, NETWORK_FETCH = "runyard.dev/network", "fetch"
"""On the pod, for NetworkPolicies: what the job's requirements say; `fetch` for a job with none whose workspace is
fetched, because a policy cannot tell the containers of a pod apart."""
(
    JOB_ID,
    TENANT,
    EPOCH,
    STOP,
) = (  # annotations; STOP on the Secret is the mark of a stop, with its grace in seconds
    "runyard.dev/job-id",
    "runyard.dev/tenant",
    "runyard.dev/epoch",
    "runyard.dev/stop",
)

PREPARE, COLLECT, STEP_PREFIX = "prepare", "collect", "step-"

# Where things are in the pod. `files` has the job's three folders; a step sees only those.
ROOT = "/run/runyard"
BIN, RESULTS, RESULT, FILES = f"{ROOT}/bin", f"{ROOT}/results", f"{ROOT}/result", f"{ROOT}/files"
STEP_INPUT, INPUT = f"{ROOT}/step", f"{ROOT}/input"
PLAN = "plan.json"
DONE = "done"
MESSAGE = "/dev/termination-log"

# The kubelet cuts the messages of all containers of a pod to this, shared evenly, and each to MESSAGE_BYTES_MAX.
POD_MESSAGES_BYTES_MAX, MESSAGE_BYTES_MAX = 12 * 1024, 4096


def step_container(index: int) -> str:
    """The container of a step, by its index from 0; its log belongs to `runyard.logs.layout.step_key(index)`."""
    return f"{STEP_PREFIX}{index:03d}"


def step_index(container: str) -> int | None:
    """The inverse; None for a container that is no step."""
    number = container.removeprefix(STEP_PREFIX)
    return int(number) if number != container and number.isdecimal() else None
