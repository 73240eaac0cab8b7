"""What the server fills in before it validates."""

import base64
from typing import Any

Json = dict[str, Any]


def fill_in(kind: str, obj: Json) -> None:
    match kind:
        case "Secret":
            for key, value in obj.pop("stringData", {}).items():
                obj.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
            obj.setdefault("type", "Opaque")
        case "Pod":
            fill_in_pod_spec(obj.setdefault("spec", {}))
            obj["spec"].setdefault("restartPolicy", "Always")
            obj["spec"].setdefault("serviceAccountName", "default")
            obj["spec"].setdefault("enableServiceLinks", True)
            requests_from_limits(obj["spec"])
        case "Job":
            fill_in_job(obj)
        case _:
            pass


def fill_in_job(job: Json) -> None:
    spec, name, uid = job.setdefault("spec", {}), job["metadata"].get("name", ""), job["metadata"]["uid"]
    for key, value in {
        "parallelism": 1, "completions": 1, "backoffLimit": 6, "manualSelector": False,
        "completionMode": "NonIndexed", "podReplacementPolicy": "TerminatingOrFailed",
    }.items():  # fmt: skip
        spec.setdefault(key, value)
    template = spec.setdefault("template", {})
    fill_in_pod_spec(template.setdefault("spec", {}))
    own = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name}
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels.update(own | {"controller-uid": uid, "job-name": name})
    matched = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    matched["batch.kubernetes.io/controller-uid"] = uid


def fill_in_pod_spec(spec: Json) -> None:
    for key, value in {
        "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler", "securityContext": {},
    }.items():  # fmt: skip
        spec.setdefault(key, value)
    if spec["terminationGracePeriodSeconds"] < 0:
        spec["terminationGracePeriodSeconds"] = 1  # as the server does, with a warning only
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        tag = container.get("image", "").rpartition("/")[2].partition(":")[2]
        container.setdefault("imagePullPolicy", "Always" if tag in {"", "latest"} else "IfNotPresent")


def requests_from_limits(spec: Json) -> None:
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        for name, value in (container["resources"].get("limits") or {}).items():
            container["resources"].setdefault("requests", {}).setdefault(name, value)
