"""Whether a pod's spec may be stored."""

import re
from collections import Counter
from decimal import Decimal
from typing import Any

from tests.kubernetes.strict_server import naming
from tests.kubernetes.strict_server.causes import Cause, duplicate, required, unsupported, wrong
from tests.kubernetes.strict_server.quantities import parse_quantity, quantity_text
from tests.kubernetes.strict_server.status import bad_request

Json = dict[str, Any]
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
SECCOMP_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
STANDARD_RESOURCES = {"cpu", "memory", "ephemeral-storage"}


def pod_spec_causes(spec: Json, path: str) -> list[Cause]:
    causes = volume_causes(spec.get("volumes") or [], f"{path}.volumes")
    volumes = {volume.get("name", "") for volume in spec.get("volumes") or []}
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    seen: set[str] = set()
    for listed in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(listed) or []):
            at = f"{path}.{listed}[{index}]"
            causes += container_causes(container, at, volumes)
            name = container.get("name") or ""
            if name in seen:
                causes.append(duplicate(f"{at}.name", name))
            seen.add(name)
            policy = container.get("restartPolicy")
            if listed == "initContainers" and policy not in {None, "Always", "Never", "OnFailure"}:
                causes.append(unsupported(f"{at}.restartPolicy", policy, ("Always", "Never", "OnFailure")))
    causes += pod_resource_causes(spec, path)
    causes += placing_causes(spec, path)
    return causes + security_causes(spec.get("securityContext") or {}, f"{path}.securityContext")


def placing_causes(spec: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in (spec.get("nodeSelector") or {}).items():
        if why := naming.wrong_qualified_name(key):
            causes.append(wrong(f"{path}.nodeSelector", key, why))
        if why := naming.wrong_label_value(value):
            causes.append(wrong(f"{path}.nodeSelector", value, why))
    for index, toleration in enumerate(spec.get("tolerations") or []):
        operator = toleration.get("operator") or "Equal"
        if operator not in {"Equal", "Exists"}:
            causes.append(unsupported(f"{path}.tolerations[{index}].operator", operator, ("Equal", "Exists")))
    for key in ("runtimeClassName", "serviceAccountName"):
        if spec.get(key) and (why := naming.wrong_subdomain(spec[key])):
            causes.append(wrong(f"{path}.{key}", spec[key], why))
    return causes


def volume_causes(volumes: list[Json], path: str) -> list[Cause]:
    causes: list[Cause] = []
    counted: Counter[str] = Counter()
    for index, volume in enumerate(volumes):
        name, at = volume.get("name") or "", f"{path}[{index}]"
        if not name:
            causes.append(required(f"{at}.name"))
        elif why := naming.wrong_label_name(name):
            causes.append(wrong(f"{at}.name", name, why))
        counted[name] += 1
        if counted[name] == 2:
            causes.append(duplicate(f"{at}.name", name))
        if len(volume) < 2:
            causes.append(required(at, "must specify a volume type"))
        for number, item in enumerate((volume.get("secret") or {}).get("items") or []):
            if ".." in item.get("path", "").split("/"):
                field = f"{at}.secret.items[{number}].path"
                causes.append(wrong(field, item["path"], "must not contain '..'"))
    return causes


def container_causes(container: Json, path: str, volumes: set[str]) -> list[Cause]:
    causes: list[Cause] = []
    name = container.get("name") or ""
    if not name:
        causes.append(required(f"{path}.name"))
    elif why := naming.wrong_label_name(name):
        causes.append(wrong(f"{path}.name", name, why))
    if not container.get("image"):
        causes.append(required(f"{path}.image"))
    if (policy := container.get("imagePullPolicy")) not in {*PULL_POLICIES, None, ""}:
        causes.append(unsupported(f"{path}.imagePullPolicy", policy, PULL_POLICIES))
    causes += environment_causes(container.get("env") or [], f"{path}.env")
    paths: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        at = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            causes.append(Cause(f"{at}.name", "FieldValueNotFound", f'Not found: "{mount.get("name", "")}"'))
        if not mount.get("mountPath"):
            causes.append(required(f"{at}.mountPath"))
        elif mount["mountPath"] in paths:
            causes.append(wrong(f"{at}.mountPath", mount["mountPath"], "must be unique"))
        paths.add(mount.get("mountPath", ""))
    causes += resource_causes(container.get("resources") or {}, f"{path}.resources")
    return causes + security_causes(container.get("securityContext") or {}, f"{path}.securityContext")


def environment_causes(variables: list[Json], path: str) -> list[Cause]:
    """A name that stands twice is no error: the server only warns of it, and the last one counts."""
    causes: list[Cause] = []
    for index, variable in enumerate(variables):
        name, at = variable.get("name") or "", f"{path}[{index}]"
        if not name:
            causes.append(required(f"{at}.name"))
        elif not re.fullmatch(r"[ -<>-~]+", name):
            why = "a valid environment variable name must consist only of printable ASCII characters other than '='"
            causes.append(wrong(f"{at}.name", name, why))
        source = variable.get("valueFrom") or {}
        for kind in ("secretKeyRef", "configMapKeyRef"):
            if kind in source and not source[kind].get("key"):
                causes.append(required(f"{at}.valueFrom.{kind}.key"))
    return causes


def environment_warnings(spec: Json, path: str) -> list[str]:
    warnings: list[str] = []
    for index, container in enumerate(spec.get("containers") or []):
        names: set[str] = set()
        for number, variable in enumerate(container.get("env") or []):
            if variable.get("name") in names:
                where = f"{path}.containers[{index}].env[{number}]"
                warnings.append(
                    f'{where}: hides previous definition of "{variable["name"]}", which may be dropped when using apply'
                )
            names.add(variable.get("name", ""))
    return warnings


def resource_causes(resources: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for listed, values in (("limits", limits), ("requests", requests)):
        for name, text in values.items():
            at = f"{path}.{listed}[{name}]"
            if "/" not in name and name not in STANDARD_RESOURCES and not name.startswith("hugepages-"):
                causes.append(wrong(at, name, "must be a standard resource type or fully qualified"))
                causes.append(wrong(at, name, "must be a standard resource for containers"))
            elif quantity(text) < 0:
                causes.append(wrong(at, str(text), "must be greater than or equal to 0"))
    for name, text in requests.items():
        if name in limits and quantity(text) > quantity(limits[name]):
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            causes.append(wrong(f"{path}.requests", str(text), why))
    return causes


def pod_resource_causes(spec: Json, path: str) -> list[Cause]:
    """Pod-level resources: cpu, memory and hugepages only, and no less than the containers add up to."""
    causes: list[Cause] = []
    resources = spec.get("resources") or {}
    for listed in ("limits", "requests"):
        for name in resources.get(listed) or {}:
            if name not in {"cpu", "memory"} and not name.startswith("hugepages-"):
                at = f"{path}.resources.{listed}[{name}]"
                causes.append(unsupported(at, name, ("cpu", "hugepages-", "memory")))
    for name, text in (resources.get("requests") or {}).items():
        containers = [
            (each.get("resources") or {}).get("requests") or {} for each in spec.get("containers") or []
        ]
        together = sum((quantity(each.get(name, 0)) for each in containers), Decimal(0))
        if name in {"cpu", "memory"} and quantity(text) < together:
            why = (
                f"must be greater than or equal to aggregate container requests of {quantity_text(together)}"
            )
            causes.append(wrong(f"{path}.resources.requests[{name}]", str(text), why))
    return causes


def security_causes(context: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        if context.get(key) is not None and not 0 <= context[key] <= 2147483647:
            causes.append(wrong(f"{path}.{key}", context[key], "must be between 0 and 2147483647, inclusive"))
    kind = (context.get("seccompProfile") or {}).get("type")
    if kind not in {None, *SECCOMP_TYPES}:
        causes.append(unsupported(f"{path}.seccompProfile.type", kind, SECCOMP_TYPES))
    if context.get("privileged") and context.get("allowPrivilegeEscalation") is False:
        why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        causes.append(wrong(path, "privileged", why))
    return causes


def quantity(text: object) -> Decimal:
    """A quantity that cannot be read is a decoding error, 400."""
    try:
        return parse_quantity(str(text))
    except ValueError as error:
        raise bad_request(f'Job in version "v1" cannot be handled as a Job: {error}') from None
