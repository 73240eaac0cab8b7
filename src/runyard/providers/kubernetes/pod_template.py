"""The pool's own additions to the pod: merged into what Runyard makes by Kubernetes' strategic rules. Pure.

A template may add and never change: where it names what Runyard sets, with another value, that is an error which names
the path. `spec.containers[step]` stands for every step's container.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from runyard.providers.kubernetes.layout import COLLECT, MANAGED_BY, PREPARE, ROOT, STEP_PREFIX
from runyard.providers.option_values import WrongWithin

STEP = "step"
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "env": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "claims": "name",
}
_OF_METADATA = ("labels", "annotations")
_OF_OUR_CONTAINERS = (
    "name",
    "resources",
    "env",
    "envFrom",
    "volumeMounts",
    "volumeDevices",
    "securityContext",
    "imagePullPolicy",
)
_NEVER = {
    "hostPID": "a step would see, and end, processes that are not its own",
    "shareProcessNamespace": "each step ends all processes that it sees",
    "hostIPC": "it would break the isolation that the pool states",
    "hostNetwork": "it would pass by every network policy",
    "nodeName": "it would pass by the scheduler; use node_selector",
    "activeDeadlineSeconds": "Runyard keeps the limits of the job",
    "ephemeralContainers": "a new pod has none",
}


class TemplateProblem(WrongWithin):
    """`place` as in `spec.containers[step].command`."""


def check_template(template: Any) -> dict[str, Any]:
    """What can be said of it without a pod. Raises TemplateProblem, ValueError where it is no table."""
    if not isinstance(template, Mapping):
        raise ValueError
    for key in template:
        if key not in ("metadata", "spec"):
            raise TemplateProblem(str(key), "is no part of a pod's template; write `metadata` and `spec`")
    _refuse_directives(template, "")
    for key in template.get("metadata") or {}:
        if key not in _OF_METADATA:
            raise TemplateProblem(
                f"metadata.{key}", "is Runyard's own; only labels and annotations can be added"
            )
    for part in _OF_METADATA:
        for key in (template.get("metadata") or {}).get(part) or {}:
            if key.startswith("runyard.dev/") or key == MANAGED_BY:
                raise TemplateProblem(f"metadata.{part}[{key}]", "is Runyard's own; remove it")
    _check_spec(template.get("spec") or {})
    return copy.deepcopy(dict(template))


def _check_spec(spec: Any) -> None:
    if not isinstance(spec, Mapping):
        raise TemplateProblem("spec", "is no table")
    for key, why in _NEVER.items():
        if key in spec:
            raise TemplateProblem(f"spec.{key}", f"cannot be set: {why}; remove it")
    for kind in ("containers", "initContainers"):
        for container in _named(spec.get(kind) or (), f"spec.{kind}"):
            name = container["name"]
            path = f"spec.{kind}[{name}]"
            ours = (STEP, COLLECT) if kind == "containers" else (PREPARE,)
            if name in ours:
                _check_our_container(container, path)
            elif kind == "containers" or name.startswith(STEP_PREFIX):
                raise TemplateProblem(
                    path,
                    f"is none of {', '.join(ours)}; a helper beside the steps is an init container"
                    " with restartPolicy Always",
                )


def _check_our_container(container: Mapping[str, Any], path: str) -> None:
    for key in container:
        if key not in _OF_OUR_CONTAINERS:
            raise TemplateProblem(f"{path}.{key}", f"is Runyard's own; what can be added is {_listed()}")
    if (container.get("securityContext") or {}).get("privileged"):
        raise TemplateProblem(f"{path}.securityContext.privileged", "would be no isolation; remove it")
    for mount in container.get("volumeMounts") or ():
        where = str(mount.get("mountPath", "")).rstrip("/")
        if where in ("", "/run") or where == ROOT or where.startswith(ROOT + "/"):
            raise TemplateProblem(
                f"{path}.volumeMounts[{where or '/'}]",
                f"would cover {ROOT}, which is Runyard's; mount it elsewhere",
            )


def _listed() -> str:
    return ", ".join(each for each in _OF_OUR_CONTAINERS if each != "name")


def _refuse_directives(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for key, each in value.items():
            at = f"{path}.{key}" if path else str(key)
            if str(key).startswith("$"):
                raise TemplateProblem(at, "directives of a patch are not known here; a template only adds")
            _refuse_directives(each, at)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            _refuse_directives(each, f"{path}[{index}]")


def _named(items: Any, path: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(items, list | tuple):
        raise TemplateProblem(path, "is no list")
    for index, each in enumerate(items):
        if not isinstance(each, Mapping) or not isinstance(each.get("name"), str):
            raise TemplateProblem(f"{path}[{index}]", "has no name")
    return items


def find_conflicts(pod: Mapping[str, Any], template: Mapping[str, Any]) -> list[TemplateProblem]:
    """Where a template says otherwise than the pod (its `metadata` and `spec`) that Runyard makes."""
    problems: list[TemplateProblem] = []
    _merge(pod, _expanded(pod, template), "", "", problems)
    return problems


def add_template(pod: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """The pod's `metadata` and `spec` with the template's additions; what Runyard sets stays."""
    if not template:
        return dict(pod)
    merged = _merge(pod, _expanded(pod, template), "", "", [])
    return dict(merged)


def _expanded(pod: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """With `step` written out for each step, and without what is for a container that this pod has not."""
    expanded = copy.deepcopy(dict(template))
    containers = (expanded.get("spec") or {}).get("containers")
    if containers:
        by_name = {each["name"]: each for each in containers}
        found: list[dict[str, Any]] = []
        for container in pod["spec"]["containers"]:
            name = container["name"]
            patch = by_name.get(STEP if name.startswith(STEP_PREFIX) else name)
            if patch is not None:
                found.append({**patch, "name": name})
        expanded["spec"]["containers"] = found
    return expanded


def _merge(ours: Any, theirs: Any, path: str, key: str, problems: list[TemplateProblem]) -> Any:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        merged = dict(ours)
        for name, each in theirs.items():
            at = f"{path}.{name}" if path else name
            merged[name] = _merge(ours[name], each, at, name, problems) if name in ours else each
        return merged
    merge_key = _MERGE_KEYS.get(key)
    if merge_key and isinstance(ours, list) and isinstance(theirs, list | tuple):
        return _merge_lists(ours, theirs, path, key, merge_key, problems)
    if ours != theirs:
        problems.append(TemplateProblem(path, f"is Runyard's own ({_shown(ours)}); remove it"))
    return ours


def _merge_lists(
    ours: list[Any],
    theirs: Sequence[Any],
    path: str,
    key: str,
    merge_key: str,
    problems: list[TemplateProblem],
) -> list[Any]:
    """Elements of one name are one; new init containers come first, so that a helper runs when `prepare` does."""
    merged = list(ours)
    places = {each.get(merge_key): index for index, each in enumerate(ours)}
    new: list[Any] = []
    for each in theirs:
        name = each.get(merge_key) if isinstance(each, Mapping) else None
        at = f"{path}[{name}]"
        if name not in places:
            new.append(each)
        elif key in ("volumes", "volumeMounts"):
            if each != merged[places[name]]:
                problems.append(TemplateProblem(at, "is Runyard's own; choose another"))
        else:
            merged[places[name]] = _merge(merged[places[name]], each, at, "", problems)
    return [*new, *merged] if key == "initContainers" else [*merged, *new]


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float | bool) else "set by it"
