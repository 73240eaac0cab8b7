"""The documents that an attempt is in a cluster: its input, a Secret, and its Job with the pod. Pure."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runyard.host.cgroups import Limits
from runyard.host.disk_watch import DiskLimits
from runyard.host.plan import FetchRules, Plan, PlanCache, PlanCaches, PlanCredential, PlanFile, PlanGit
from runyard.model.attempt import AttemptKey
from runyard.model.egress import NETWORK_NONE
from runyard.model.errors import InvalidRequest
from runyard.model.job import JobSpec, Step
from runyard.model.requirements import Requirements
from runyard.providers.kubernetes import layout
from runyard.providers.kubernetes.pod_template import add_template, find_conflicts
from runyard.providers.kubernetes.step_input import COLLECT_CONDITION, step_input
from runyard.providers.port import AttemptRequest

if TYPE_CHECKING:
    from runyard.providers.kubernetes.options import KubernetesOptions

SECRET_BYTES_MAX = 1_000_000  # the API server's own bound is 1 MiB over all keys
PREPARE_MEMORY_BYTES_MIN = 256 << 20
COLLECT_MEMORY_BYTES = 256 << 20
COLLECT_HOLD_S = 330.0
DEADLINE_SPARE_S = 3600
TTL_S = 6 * 3600
_IDLE = {"cpu": "1m", "memory": "4Mi"}
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """What the started provider knows of itself. `image` is the platform's."""

    pool: str
    installation: str
    namespace: str
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFeatures:
    """What the server has, by discovery. `has_native_sidecars`: init containers may have restartPolicy Always."""

    has_native_sidecars: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCredential:
    """A credential of the pool for fetching, its files read (`credentials.py`); texts are never shown."""

    url: str
    username: str = ""
    password: bytes = field(default=b"", repr=False)
    ssh_key: bytes = field(default=b"", repr=False)
    known_hosts: bytes = field(default=b"", repr=False)


def collects(spec: JobSpec) -> bool:
    """Whether the pod has a container `collect`: for what the job names. Steps may leave outputs unnamed."""
    return bool(spec.artifacts or spec.outputs)


def mark_secret(
    key: AttemptKey, facts: PoolFacts, *, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The Secret without an input: the mark of a stop that came before the start."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": key.resource_name,
            "namespace": facts.namespace,
            "labels": _labels(key, facts),
            "annotations": dict(annotations or {}),
        },
    }


def input_secret(
    attempt: AttemptRequest,
    options: KubernetesOptions,
    facts: PoolFacts,
    *,
    credentials: Sequence[ReadCredential] = (),
    authorities: bytes = b"",
) -> dict[str, Any]:
    """All that the pod is told: `plan.json` for prepare and collect, a `step-000`, … for each step, the credentials.
    `authorities` is the content of the pool's git_ca_file. Raises InvalidRequest where it is more than a Secret
    holds."""
    content: dict[str, bytes] = {}
    planned: list[PlanCredential] = []
    for index, each in enumerate(credentials):
        planned.append(_planned_credential(index, each, content))
    if authorities:
        content["authorities.pem"] = authorities
    plan = _plan(attempt, options, tuple(planned), has_authorities=bool(authorities))
    content[layout.PLAN] = plan.to_json().encode()
    for index, step in enumerate(attempt.spec.steps):
        content[layout.step_container(index)] = step_input(
            attempt, step, index, options.kill_grace_s
        ).encode()
    if collects(attempt.spec):
        content[layout.COLLECT] = _collect_input(attempt, options).encode()
    size = sum(len(name) + len(each) for name, each in content.items())
    if size > SECRET_BYTES_MAX:
        raise InvalidRequest(
            f"the job's files, commands and environment take {size} bytes, and a Kubernetes Secret holds"
            f" {SECRET_BYTES_MAX}; give large files of workspace.files by URL",
            field="workspace.files",
        )
    secret = mark_secret(attempt.key, facts, annotations=_annotations(attempt))
    return {
        **secret,
        "immutable": True,
        "data": {name: base64.b64encode(each).decode() for name, each in content.items()},
    }


def job_manifest(
    attempt: AttemptRequest, options: KubernetesOptions, features: ServerFeatures, facts: PoolFacts
) -> dict[str, Any]:
    """The `batch/v1` Job. Its deadline and time to live are backstops, far above the limits that the pod keeps."""
    spec = attempt.spec
    labels = _labels(attempt.key, facts)
    pod = add_template(_pod(attempt, options, facts), options.pod_template)
    if not features.has_native_sidecars:
        pod = _without_sidecars(pod)
    deadline_s = spec.limits.start_s + spec.limits.run_s + COLLECT_HOLD_S + options.kill_grace_s
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": attempt.key.resource_name,
            "namespace": facts.namespace,
            "labels": {**options.job_labels, **labels},
            "annotations": _annotations(attempt),
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(deadline_s) + DEADLINE_SPARE_S,
            "ttlSecondsAfterFinished": TTL_S,
            "template": pod,
        },
    }


def template_problems(options: KubernetesOptions) -> list[str]:
    """Where the pool's pod_template says otherwise than Runyard, found with a pod that has everything. To be asked when
    the configuration is loaded."""
    sample = AttemptRequest(
        key=AttemptKey("0" * 16, 1),
        job_id="sample",
        spec=JobSpec(steps=(Step(name="one", command=("true",)),), artifacts=("*",)),
        slot=0,
        epoch=1,
    )
    facts = PoolFacts(pool="sample", installation="sample", namespace="sample", image="sample")
    found = find_conflicts(_pod(sample, options, facts), options.pod_template)
    return [
        f"pod_template.{each.place.replace(layout.step_container(0), 'step')}: {each.words}" for each in found
    ]


# -- the input ------------------------------------------------------------------------------------------------------


def _plan(
    attempt: AttemptRequest,
    options: KubernetesOptions,
    credentials: tuple[PlanCredential, ...],
    *,
    has_authorities: bool,
) -> Plan:
    """The same document as on a host of ours, without steps: theirs come one by one, each to its own container. Times
    and the boot are filled in where it is carried out."""
    spec, requirements = attempt.spec, attempt.spec.requirements
    git = spec.workspace.git
    return Plan(
        name=attempt.key.resource_name,
        boot_id="",
        created_at=0.0,
        created_boottime=0.0,
        steps=(),
        log_directory="",
        artifact_directory="",
        limits=Limits(memory_bytes=requirements.memory_bytes),
        disk=DiskLimits(bytes_max=_disk_bytes(requirements, options)),
        start_limit_s=spec.limits.start_s,
        run_limit_s=spec.limits.run_s,
        kill_grace_s=options.kill_grace_s,
        files=tuple(
            PlanFile(path=file.path, content_base64=file.content_base64, url=file.url, sha256=file.sha256)
            for file in spec.workspace.files
        ),
        git=None
        if git is None
        else PlanGit(
            url=git.url,
            ref=git.ref,
            depth=git.depth,
            fetch_tags=git.fetch_tags,
            sparse=git.sparse,
            submodules=git.submodules,
            lfs=git.lfs,
            tenant=spec.tenant,
            credentials=credentials,
        ),
        fetch=FetchRules(
            protocols=options.git_protocols,
            allow_private_addresses=options.allow_private_addresses,
            ca_file=f"{layout.INPUT}/authorities.pem" if has_authorities else None,
        ),
        caches=_caches(spec),
        artifacts=spec.artifacts,
        outputs=dict(spec.outputs),
    )


def _caches(spec: JobSpec) -> PlanCaches | None:
    """Off, for a pod has nowhere to keep them: prepare says so."""
    if not spec.cache:
        return None
    entries = tuple(PlanCache(key=each.key, path=each.path) for each in spec.cache)
    return PlanCaches(
        directory="", tenant=spec.tenant, queue=spec.queue, bytes_max=0, entry_bytes_max=0, entries=entries
    )


def _planned_credential(index: int, each: ReadCredential, content: dict[str, bytes]) -> PlanCredential:
    files: dict[str, str | None] = {}
    for name, text in (
        ("password", each.password),
        ("ssh_key", each.ssh_key),
        ("known_hosts", each.known_hosts),
    ):
        key = f"credential-{index:03d}.{name}"
        if text:
            content[key] = text
        files[f"{name}_file"] = f"{layout.INPUT}/{key}" if text else None
    return PlanCredential(url=each.url, username=each.username, **files)


def _collect_input(attempt: AttemptRequest, options: KubernetesOptions) -> str:
    """Waits like a step and runs in any case, then holds its container until everything was read."""
    step = Step(
        name=layout.COLLECT, command=("python3", "-m", "runyard.providers.kubernetes.pod", "hold"), dir="/"
    )
    return step_input(
        attempt,
        step,
        len(attempt.spec.steps),
        options.kill_grace_s,
        condition=COLLECT_CONDITION,
        run_s=COLLECT_HOLD_S,
    )


# -- the pod --------------------------------------------------------------------------------------------------------


def _pod(attempt: AttemptRequest, options: KubernetesOptions, facts: PoolFacts) -> dict[str, Any]:
    spec = attempt.spec
    containers = [_step_container(attempt, index, options, facts) for index in range(len(spec.steps))]
    if collects(spec):
        containers.append(_collect_container(attempt, options, facts))
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(options.kill_grace_s) + 5,
        "nodeSelector": _node_selector(spec.requirements, options),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": options.user_id,
            "runAsGroup": options.user_id,
            "fsGroup": options.user_id,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_prepare_container(attempt, options, facts)],
        "containers": containers,
        "volumes": [
            {"name": "input", "secret": {"secretName": attempt.key.resource_name, "defaultMode": 0o444}},
            {"name": "bin", "emptyDir": {}},
            {"name": "results", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "files", "emptyDir": {"sizeLimit": str(_disk_bytes(spec.requirements, options))}},
        ],
    }
    for name, value in (
        ("runtimeClassName", options.runtime_class),
        ("priorityClassName", options.priority_class),
        ("serviceAccountName", options.service_account),
        ("tolerations", [dict(each) for each in options.tolerations]),
        ("imagePullSecrets", [{"name": each} for each in options.image_pull_secrets]),
    ):
        if value:
            pod[name] = value
    labels = {**_labels(attempt.key, facts), layout.NETWORK: _network(spec)}
    return {"metadata": {"labels": labels, "annotations": _annotations(attempt)}, "spec": pod}


def _prepare_container(
    attempt: AttemptRequest, options: KubernetesOptions, facts: PoolFacts
) -> dict[str, Any]:
    """Alone in seeing the whole input; its memory is the job's, and what git and Python need at least."""
    requirements = attempt.spec.requirements
    memory = max(requirements.memory_bytes, PREPARE_MEMORY_BYTES_MIN)
    return {
        "name": layout.PREPARE,
        "image": facts.image,
        **_pull_policy(options),
        "command": ["python3", "-m", "runyard.providers.kubernetes.pod", "prepare"],
        "args": [
            str(len(attempt.spec.steps) + collects(attempt.spec)),
            str(_message_bytes(attempt.spec)),
        ],
        "workingDir": "/",
        "env": [{"name": "HOME", "value": "/tmp/home"}],
        "securityContext": {**_CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
        "resources": {
            "requests": {"cpu": _cpu(requirements.cpu_millis), "memory": str(requirements.memory_bytes)},
            "limits": {"cpu": _cpu(max(requirements.cpu_millis, 500)), "memory": str(memory)},
        },
        "volumeMounts": [
            {"name": "input", "mountPath": layout.INPUT, "readOnly": True},
            {"name": "bin", "mountPath": layout.BIN},
            {"name": "results", "mountPath": layout.RESULTS},
            {"name": "files", "mountPath": layout.FILES},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
    }


def _step_container(
    attempt: AttemptRequest, index: int, options: KubernetesOptions, facts: PoolFacts
) -> dict[str, Any]:
    """Requests of a pod's containers add up though its steps run one after the other: the first asks for all."""
    spec = attempt.spec
    requirements = spec.requirements
    disk = requirements.disk_bytes
    requests = dict(_IDLE)
    if index == 0:
        requests = {"cpu": _cpu(requirements.cpu_millis), "memory": str(requirements.memory_bytes)}
        if disk is not None:
            requests["ephemeral-storage"] = str(disk)
    elif disk is not None:
        requests["ephemeral-storage"] = "0"
    name = layout.step_container(index)
    return {
        "name": name,
        "image": spec.image_of(spec.steps[index]) or options.default_image or facts.image,
        **_pull_policy(options),
        **_behind_step_sh(),
        "securityContext": dict(_CONTAINER_SECURITY),
        "resources": {
            "requests": requests,
            "limits": {
                "cpu": _cpu(requirements.cpu_millis),
                "memory": str(max(requirements.memory_bytes, 4 << 20)),
                "ephemeral-storage": str(_disk_bytes(requirements, options)),
            },
        },
        "volumeMounts": [
            *_step_mounts(name, index),
            {"name": "files", "mountPath": "/workspace", "subPath": "workspace"},
            {"name": "files", "mountPath": "/tmp", "subPath": "tmp"},
            {"name": "files", "mountPath": "/outputs", "subPath": "outputs"},
        ],
    }


def _collect_container(
    attempt: AttemptRequest, options: KubernetesOptions, facts: PoolFacts
) -> dict[str, Any]:
    return {
        "name": layout.COLLECT,
        "image": facts.image,
        **_pull_policy(options),
        **_behind_step_sh(),
        "securityContext": {**_CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
        "resources": {
            "requests": dict(_IDLE),
            "limits": {"cpu": "1", "memory": str(COLLECT_MEMORY_BYTES)},
        },
        "volumeMounts": [
            *_step_mounts(layout.COLLECT, len(attempt.spec.steps)),
            {
                "name": "input",
                "mountPath": f"{layout.INPUT}/{layout.PLAN}",
                "subPath": layout.PLAN,
                "readOnly": True,
            },
            {"name": "files", "mountPath": layout.FILES, "readOnly": True},
        ],
    }


def _behind_step_sh() -> dict[str, Any]:
    return {
        "command": [f"{layout.BIN}/busybox", "sh", f"{layout.BIN}/step.sh", layout.ROOT, layout.MESSAGE],
        "workingDir": "/",
    }


def _step_mounts(key: str, index: int) -> list[dict[str, Any]]:
    """Everybody reads all results and writes its own."""
    return [
        {"name": "bin", "mountPath": layout.BIN, "readOnly": True},
        {"name": "input", "mountPath": layout.STEP_INPUT, "subPath": key, "readOnly": True},
        {"name": "results", "mountPath": layout.RESULTS, "readOnly": True},
        {"name": "results", "mountPath": layout.RESULT, "subPath": f"{index:03d}"},
    ]


def _without_sidecars(pod: dict[str, Any]) -> dict[str, Any]:
    """An older server would run a helper before the steps, to its end, which never comes."""
    spec = dict(pod["spec"])
    spec["initContainers"] = [
        each for each in spec["initContainers"] if each.get("restartPolicy") != "Always"
    ]
    return {**pod, "spec": spec}


def _node_selector(requirements: Requirements, options: KubernetesOptions) -> dict[str, str]:
    selector = {**options.node_selector, "kubernetes.io/os": "linux"}
    if requirements.arch is not None:
        selector["kubernetes.io/arch"] = _ARCHITECTURES.get(requirements.arch, requirements.arch)
    return selector


def _network(spec: JobSpec) -> str:
    is_fetched = spec.workspace.git is not None or any(file.url for file in spec.workspace.files)
    network = spec.requirements.network
    return layout.NETWORK_FETCH if network == NETWORK_NONE and is_fetched else network


def _labels(key: AttemptKey, facts: PoolFacts) -> dict[str, str]:
    return {
        layout.MANAGED_BY: layout.RUNYARD,
        layout.INSTALLATION: facts.installation,
        layout.POOL: facts.pool,
        layout.JOB: key.uid,
        layout.ATTEMPT: str(key.number),
    }


def _annotations(attempt: AttemptRequest) -> dict[str, str]:
    return {
        layout.JOB_ID: attempt.job_id,
        layout.TENANT: attempt.spec.tenant,
        layout.EPOCH: str(attempt.epoch),
    }


def _pull_policy(options: KubernetesOptions) -> dict[str, str]:
    return {} if options.image_pull_policy is None else {"imagePullPolicy": options.image_pull_policy}


def _disk_bytes(requirements: Requirements, options: KubernetesOptions) -> int:
    return options.disk_bytes_max if requirements.disk_bytes is None else requirements.disk_bytes


def _message_bytes(spec: JobSpec) -> int:
    """How long the message of `prepare` may be: the kubelet shares the bound among all containers."""
    containers = 1 + len(spec.steps) + collects(spec)
    return min(layout.MESSAGE_BYTES_MAX, layout.POD_MESSAGES_BYTES_MAX // containers)


def _cpu(millis: int) -> str:
    return f"{millis}m"
