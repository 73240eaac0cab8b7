"""Whether an object may be stored: pure functions from a decoded object to the causes of a 422."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from tests.kubernetes.strict_server import naming
from tests.kubernetes.strict_server.causes import Cause, forbidden_field, required, too_long, wrong
from tests.kubernetes.strict_server.pod_validation import pod_spec_causes
from tests.kubernetes.strict_server.resources import Resource
from tests.kubernetes.strict_server.schema import cannot_be_handled

Json = dict[str, Any]
SECRET_BYTES_MAX = 1 << 20
ANNOTATIONS_BYTES_MAX = 256 << 10
SCHEDULING_FIELDS = ("nodeSelector", "tolerations", "affinity", "schedulingGates")


def creation_causes(resource: Resource, obj: Json) -> list[Cause]:
    causes = metadata_causes(resource, obj["metadata"])
    match resource.kind:
        case "Secret" | "ConfigMap":
            causes += config_causes(resource, obj)
        case "Pod":
            causes += pod_spec_causes(obj.get("spec") or {}, "spec")
        case "Job":
            causes += job_causes(obj)
        case _:
            pass
    return causes


def metadata_causes(resource: Resource, metadata: Json) -> list[Cause]:
    name = metadata.get("name") or ""
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    check = naming.wrong_label_name if resource.kind == "Namespace" else naming.wrong_subdomain
    causes = [wrong("metadata.name", name, why)] if (why := check(name)) else []
    causes += label_causes(metadata.get("labels") or {}, "metadata.labels")
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        if why := naming.wrong_qualified_name(key.lower()):
            causes.append(wrong("metadata.annotations", key, why))
    if (
        sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
        > ANNOTATIONS_BYTES_MAX
    ):
        causes.append(too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX))
    return causes


def label_causes(labels: Mapping[str, str], field: str) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in labels.items():
        if why := naming.wrong_qualified_name(key):
            causes.append(wrong(field, key, why))
        if why := naming.wrong_label_value(value):
            causes.append(wrong(field, value, why))
    return causes


def config_causes(resource: Resource, obj: Json) -> list[Cause]:
    """Secret and ConfigMap; raises 400 for a Secret whose data is no base64, as its decoding does."""
    data = obj.get("data") or {}
    causes = [wrong(f"data[{key}]", key, why) for key in data if (why := naming.wrong_config_key(key))]
    if resource.kind == "Secret":
        size = sum(len(decode_secret(resource, value)) for value in data.values())
    else:
        size = sum(len(value.encode()) for value in data.values())
    if size > SECRET_BYTES_MAX:
        causes.append(too_long("data" if resource.kind == "Secret" else "", SECRET_BYTES_MAX))
    return causes


def decode_secret(resource: Resource, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise cannot_be_handled(resource, "illegal base64 data at input byte 0") from None


def job_causes(job: Json) -> list[Cause]:
    spec = job.get("spec") or {}
    causes: list[Cause] = []
    for key in (
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ):
        if spec.get(key) is not None and spec[key] < 0:
            causes.append(wrong(f"spec.{key}", spec[key], "must be greater than or equal to 0"))
    template = spec.get("template") or {}
    own = job["metadata"]["uid"]
    if (spec.get("selector") or {}).get("matchLabels") != {"batch.kubernetes.io/controller-uid": own}:
        causes.append(wrong("spec.selector", spec.get("selector"), "`selector` not auto-generated"))
    causes += label_causes((template.get("metadata") or {}).get("labels") or {}, "spec.template.labels")
    pod_spec = template.get("spec") or {}
    if pod_spec.get("restartPolicy") not in {"Never", "OnFailure"}:
        causes.append(required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    return causes + pod_spec_causes(pod_spec, "spec.template.spec")


def update_causes(resource: Resource, before: Json, after: Json) -> list[Cause]:
    """What may not change once it stands."""
    causes = creation_causes(resource, after)
    match resource.kind:
        case "Job":
            causes += job_update_causes(before, after)
        case "Pod":
            causes += pod_update_causes(before, after)
        case "Secret" | "ConfigMap":
            if before.get("immutable") and before.get("data") != after.get("data"):
                causes.append(forbidden_field("data", "field is immutable when `immutable` is set"))
            if before.get("type") != after.get("type"):
                causes.append(wrong("type", after.get("type"), "field is immutable"))
        case _:
            pass
    return causes


def job_update_causes(before: Json, after: Json) -> list[Cause]:
    old, new = before["spec"], after["spec"]
    causes = [
        wrong(f"spec.{key}", new.get(key), "field is immutable")
        for key in ("completions", "selector", "completionMode", "podFailurePolicy")
        if old.get(key) != new.get(key)
    ]
    # KEP-2926: where the pods may go can change while a Job is suspended and has never started.
    never_started = old.get("suspend") and not (before.get("status") or {}).get("startTime")
    strip: Callable[[Json], Json] = without_scheduling if never_started else lambda template: template
    if strip(old["template"]) != strip(new["template"]):
        field = "spec.template.spec" if never_started else "spec.template"
        causes.append(wrong(field, new["template"], "field is immutable"))
    return causes


def without_scheduling(template: Json) -> Json:
    spec = {key: value for key, value in template["spec"].items() if key not in SCHEDULING_FIELDS}
    spec["containers"] = [{**container, "resources": {}} for container in spec["containers"]]
    return {"spec": spec}


def pod_update_causes(before: Json, after: Json) -> list[Cause]:
    def fixed(pod: Json) -> Json:
        spec = dict(pod["spec"])
        spec.pop("activeDeadlineSeconds", None)
        spec.pop("tolerations", None)
        for listed in ("containers", "initContainers"):
            spec[listed] = [{**each, "image": ""} for each in spec.get(listed) or []]
        return spec

    if fixed(before) == fixed(after):
        return []
    return [
        forbidden_field(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously "
            "negative)",
        )
    ]
