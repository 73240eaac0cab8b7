"""The keys of a `kubernetes` pool in the config file, validated all at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runyard.model.requirements import Isolation
from runyard.providers.kubernetes.manifest import template_problems
from runyard.providers.kubernetes.pod_template import check_template
from runyard.providers.local.git_credentials import WANTED, GitCredential, parse_git_credentials
from runyard.providers.local.options import GIT_PROTOCOLS
from runyard.providers.option_values import (
    Keys,
    boolean,
    one_of,
    path,
    read_keys,
    refuse_wrong_keys,
    seconds,
    size,
    some_cores,
    table_of_texts,
    whole,
)

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_KEY = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-._A-Za-z0-9]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_TOLERATION_KEYS = {"key", "operator", "value", "effect", "tolerationSeconds"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesOptions:
    """`kubeconfig`, `context` and `namespace` None: as inside a cluster, or as kubectl would find them. `image` is the
    platform's own, None that of the service's pod; `default_image` is for steps which name none, None the platform's.
    `isolation` is what the operator says that `runtime_class` gives. `job_labels` go on the Job, not on the pod
    (`kueue.x-k8s.io/queue-name`). `pod_template` holds `metadata` and `spec`, merged as pod_template.py says.
    `user_id` is user, group and fsGroup of every container. `suspended_s` is how long a Job may be held back in the
    cluster. `cpu_millis` and `memory_bytes` are the pool's budget, None: unbounded. `disk_bytes_max` is for jobs which
    name no disk."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    image: str | None = None
    default_image: str | None = None
    isolation: Isolation = Isolation.CONTAINER
    runtime_class: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    priority_class: str | None = None
    service_account: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: str | None = None
    job_labels: Mapping[str, str] = field(default_factory=dict)
    pod_template: Mapping[str, Any] = field(default_factory=dict)
    user_id: int = 1000
    cpu_millis: int | None = None
    memory_bytes: int | None = None
    disk_bytes_max: int = 10 << 30
    kill_grace_s: float = 10.0
    suspended_s: float = 24 * 3600.0
    git_protocols: tuple[str, ...] = ("https", "ssh")
    git_credentials: tuple[GitCredential, ...] = field(default=(), repr=False)
    git_ca_file: str | None = None
    allow_private_addresses: bool = False


def parse_options(pool: str, options: Mapping[str, Any]) -> KubernetesOptions:
    """Raises ConfigError naming every wrong key with its value and the cure."""
    values, problems = read_keys(options, _KEYS)
    if values.get("isolation") is Isolation.MICROVM and not values.get("runtime_class"):
        problems.append(
            "isolation = 'microvm' needs a runtime_class that gives it (Kata's, say); name it, or remove isolation"
        )
    parsed = KubernetesOptions(**values)
    problems += template_problems(parsed)
    refuse_wrong_keys(pool, problems)
    return parsed


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError
    return value


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(map(_name, value))


def _isolation(value: Any) -> Isolation:
    level = Isolation.parse(value)
    if level is Isolation.NONE:
        raise ValueError
    return level


def _labels(value: Any) -> dict[str, str]:
    labels = table_of_texts(value)
    for key, each in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(each):
            raise ValueError
    return labels


def _job_labels(value: Any) -> dict[str, str]:
    labels = _labels(value)
    if any(key.startswith(("runyard.dev/", "app.kubernetes.io/managed-by")) for key in labels):
        raise ValueError
    return labels


def _tolerations(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    for each in value:
        if not isinstance(each, Mapping) or not each or not set(each) <= _TOLERATION_KEYS:
            raise ValueError
        if each.get("operator", "Equal") not in ("Equal", "Exists"):
            raise ValueError
        if each.get("effect", "NoExecute") not in ("NoSchedule", "PreferNoSchedule", "NoExecute", ""):
            raise ValueError
    return tuple(dict(each) for each in value)


def _protocols(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not set(value) <= set(GIT_PROTOCOLS) - {"file"}:
        raise ValueError
    return tuple(value)


_KUBERNETES_NAME = "a name of Kubernetes: lower-case letters, digits, dashes and dots"
_KEYS: Keys = {
    "kubeconfig": ("kubeconfig", path, "the absolute path of a kubeconfig file"),
    "context": ("context", _text, "the name of a context in the kubeconfig"),
    "namespace": ("namespace", _name, _KUBERNETES_NAME),
    "image": ("image", _text, "an image reference"),
    "default_image": ("default_image", _text, "an image reference"),
    "isolation": ("isolation", _isolation, "'container' or 'microvm'"),
    "runtime_class": ("runtime_class", _name, _KUBERNETES_NAME),
    "labels": ("labels", table_of_texts, "a table of texts"),
    "node_selector": ("node_selector", _labels, "a table of node labels"),
    "tolerations": ("tolerations", _tolerations, "a list of tables with key, operator, value, effect"),
    "priority_class": ("priority_class", _name, _KUBERNETES_NAME),
    "service_account": ("service_account", _name, _KUBERNETES_NAME),
    "image_pull_secrets": ("image_pull_secrets", _names, "a list of names of Secrets in the namespace"),
    "image_pull_policy": (
        "image_pull_policy",
        one_of(*_PULL_POLICIES),
        f"one of {', '.join(_PULL_POLICIES)}",
    ),
    "job_labels": ("job_labels", _job_labels, "a table of labels for the Job, none of them Runyard's own"),
    "pod_template": ("pod_template", check_template, "a table with `metadata` and `spec` of a pod"),
    "user_id": ("user_id", whole(1, 2_000_000_000), "a user id from 1"),
    "cpu": ("cpu_millis", some_cores, "cores, such as 64 or '500m'"),
    "memory": ("memory_bytes", size, "a size, such as '256Gi'"),
    "disk_max": ("disk_bytes_max", size, "a size, such as '10Gi'"),
    "kill_grace": ("kill_grace_s", seconds(3600), "seconds from 0 to 3600"),
    "suspended_max": (
        "suspended_s",
        seconds(365 * 86400),
        "seconds that a Job may be held back in the cluster",
    ),
    "git_protocols": (
        "git_protocols",
        _protocols,
        f"a list of {', '.join(each for each in GIT_PROTOCOLS if each != 'file')}",
    ),
    "git_credentials": ("git_credentials", parse_git_credentials, WANTED),
    "git_ca_file": ("git_ca_file", path, "the absolute path of a PEM file"),
    "allow_private_addresses": ("allow_private_addresses", boolean, "true or false"),
}
