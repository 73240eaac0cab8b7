"""What a container is created with: hardened, limited, labelled. Pure.

By default: no capability, no new privileges, the daemon's seccomp profile, a read-only root, the job's own user, no
swap, bounded processes, a namespace without a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runyard.model.job import Service
from runyard.model.secret import FILES_DIRECTORY
from runyard.providers.docker import names
from runyard.providers.docker.plan import BIN, STATE, WORKSPACE, Group, Image, run_command
from runyard.providers.port import AttemptRequest

TMPFS = "rw,exec,nosuid,nodev,mode=1777"
_LOG_FILES = 2
SLEEP = f"{BIN}/busybox sleep"
"""What a pause is once its routes are set."""
_SECRETS_MAX = 8 << 20
"""Many times what a step may have (model.secret.ATTEMPT_BYTES_MAX), for each file fills whole pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Our busybox and step.sh in the daemon: an image for containers that are ours, a volume for those of jobs."""

    image: str
    volume: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is the same for all containers of a pool."""

    installation: str
    pool: str
    log_driver: str
    pids_max: int
    runtime: str | None = None


def pool_labels(facts: Facts) -> dict[str, str]:
    return {names.MANAGED_BY: "runyard", names.INSTALLATION: facts.installation, names.POOL: facts.pool}


def attempt_labels(facts: Facts, request: AttemptRequest) -> dict[str, str]:
    return {
        **pool_labels(facts),
        names.ATTEMPT: request.key.resource_name,
        names.JOB: request.job_id,
        names.TENANT: request.spec.tenant,
        names.EPOCH: str(request.epoch),
        names.SLOT: str(request.slot),
    }


def holder(facts: Facts, request: AttemptRequest, tools: Tools, *, has_state: bool) -> dict[str, Any]:
    """Never started. Its create makes the volumes, which the daemon fills from the image: folders that are the job's
    user's own (nothing else in the API gives a volume to a user)."""
    name = request.key.resource_name
    labels = attempt_labels(facts, request)
    mounts = [
        _volume(names.workspace_volume(name), WORKSPACE, labels),
        _volume(tools.volume, BIN, pool_labels(facts)),
    ]
    if has_state:
        mounts.append(_volume(names.state_volume(name), STATE, labels))
    return {**_idle(tools, labels), "HostConfig": {"Mounts": mounts, "NetworkMode": "none"}}


def mark(facts: Facts, attempt: str, tools: Tools, *, grace_s: float) -> dict[str, Any]:
    """Never started: it is there, and says when it was made and what grace was given."""
    labels = {**pool_labels(facts), names.ATTEMPT: attempt, names.GRACE: f"{grace_s:g}"}
    return {**_idle(tools, labels), "HostConfig": {"NetworkMode": "none"}}


def broken_mark(facts: Facts, request: AttemptRequest, image: str, *, words: str) -> dict[str, Any]:
    """Never started: a service failed the attempt, in these words for whoever adopts it. `image` is any."""
    labels = {**attempt_labels(facts, request), names.WHY: words}
    return {
        "Image": image,
        "Entrypoint": [f"{BIN}/busybox"],
        "Labels": labels,
        "HostConfig": {"NetworkMode": "none"},
    }


def steps(
    facts: Facts,
    request: AttemptRequest,
    group: Group,
    tools: Tools,
    *,
    image: str,
    digest: str,
    user: str,
    network: str,
    log_bytes_max: int,
    has_state: bool,
) -> dict[str, Any]:
    name = request.key.resource_name
    requirements = request.spec.requirements
    mounts = [
        _volume(names.workspace_volume(name), WORKSPACE),
        _volume(tools.volume, BIN, read_only=True),
    ]
    tmpfs = {"/tmp": TMPFS}
    if has_state:
        mounts.append(_volume(names.state_volume(name), STATE))
    else:
        tmpfs[STATE] = "rw,noexec,nosuid,nodev,mode=1777,size=67108864"
    if any(use.path is not None for use in group.secrets):
        uid, _, gid = user.partition(":")
        tmpfs[FILES_DIRECTORY] = f"rw,noexec,nosuid,nodev,mode=0700,uid={uid},gid={gid},size={_SECRETS_MAX}"
    return {
        "Image": image,
        "Entrypoint": [f"{BIN}/busybox"],
        "Cmd": run_command(group),
        "User": user,
        "WorkingDir": "/",
        "OpenStdin": group.is_fed,
        "StdinOnce": group.is_fed,
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {**attempt_labels(facts, request), names.IMAGE: digest},
        "HostConfig": {
            **_hardened(facts),
            "NetworkMode": network,
            "Mounts": mounts,
            "Tmpfs": tmpfs,
            "Memory": requirements.memory_bytes,
            "MemorySwap": requirements.memory_bytes,
            "NanoCpus": requirements.cpu_millis * 1_000_000,
            "LogConfig": _log(facts, log_bytes_max),
        },
    }


def service(
    facts: Facts,
    request: AttemptRequest,
    service: Service,
    tools: Tools,
    *,
    image: Image,
    user: str,
    network: str,
    log_bytes_max: int,
) -> dict[str, Any]:
    """Its image's own entry point, command and folder. What it writes goes with it."""
    requirements = request.spec.requirements
    memory = service.memory_bytes or requirements.memory_bytes
    cpu = service.cpu_millis or requirements.cpu_millis
    config: dict[str, Any] = {
        "Image": image.id,
        "User": user,
        "Env": [f"{name}={value}" for name, value in service.env.items()],
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {**attempt_labels(facts, request), names.IMAGE: image.digest},
        "HostConfig": {
            **_hardened(facts),
            "ReadonlyRootfs": False,
            "NetworkMode": network,
            "Mounts": [_volume(tools.volume, BIN, read_only=True)],
            "Tmpfs": {"/tmp": TMPFS},
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": cpu * 1_000_000,
            "LogConfig": _log(facts, log_bytes_max),
        },
    }
    if service.command:
        config["Cmd"] = list(service.command)
    return config


def pause(facts: Facts, tools: Tools, *, slot: int, network: str, command: str) -> dict[str, Any]:
    """Sleeps, and so keeps a network namespace. `command` is run first, as root with the right to set routes, where
    the network is not none."""
    host = {
        **_hardened(facts),
        "NetworkMode": network,
        "Memory": 16 << 20,
        "MemorySwap": 16 << 20,
        "PidsLimit": 16,
        "LogConfig": {"Type": "none", "Config": {}},
    }
    if command:
        host["CapAdd"] = ["NET_ADMIN"]
    return {
        "Image": tools.image,
        "Entrypoint": [f"{BIN}/busybox"],
        "Cmd": ["sh", "-c", f"{command} exec {SLEEP} 2147483647"],
        "User": "0:0" if command else "65534:65534",
        "StopSignal": "SIGKILL",  # a shell that is PID 1 would let dockerd wait for nothing
        "Labels": {**pool_labels(facts), names.SLOT: str(slot)},
        "HostConfig": host,
    }


def bare(facts: Facts, tools: Tools, *, user: str, memory_bytes: int) -> dict[str, Any]:
    """One of ours, as hardened as a job's, without volumes and network."""
    return {
        "Image": tools.image,
        "User": user,
        "HostConfig": {
            **_hardened(facts),
            "NetworkMode": "none",
            "Memory": memory_bytes,
            "MemorySwap": memory_bytes,
            "LogConfig": _log(facts, 1 << 20),
        },
    }


def _idle(tools: Tools, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"Image": tools.image, "Cmd": [f"{BIN}/busybox", "true"], "Labels": dict(labels)}


def _hardened(facts: Facts) -> dict[str, Any]:
    host: dict[str, Any] = {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": facts.pids_max,
        "Privileged": False,
        "IpcMode": "private",
        "RestartPolicy": {"Name": "no"},
        "OomScoreAdj": 500,
    }
    if facts.runtime is not None:
        host["Runtime"] = facts.runtime
    return host


def _log(facts: Facts, bytes_max: int) -> dict[str, Any]:
    """Kept for whoever adopts the attempt: more than what we keep of it, so that only what is cut anyway is rotated."""
    size = max(16 << 20, bytes_max)
    config = {"max-size": str(size), "max-file": str(_LOG_FILES)}
    if facts.log_driver == "local":
        config["compress"] = "false"
    return {"Type": facts.log_driver, "Config": config}


def _volume(
    source: str, target: str, labels: Mapping[str, str] | None = None, *, read_only: bool = False
) -> dict[str, Any]:
    """With labels it is made by this create and filled from the image; without it is mounted as it is."""
    options: dict[str, Any] = {"NoCopy": True} if labels is None else {"Labels": dict(labels)}
    return {
        "Type": "volume",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "VolumeOptions": options,
    }
