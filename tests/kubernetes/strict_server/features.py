"""Which Kubernetes the server plays: what an older one lacks is dropped in silence, or refused, as there."""

from dataclasses import dataclass
from typing import Any

from tests.kubernetes.strict_server.causes import Cause, forbidden_field

Json = dict[str, Any]


@dataclass(frozen=True)
class Features:
    """`refused` names features whose fields are answered by 422 instead of dropped in silence.

    `target_conditions`: FailureTarget and SuccessCriteriaMet stand before Failed and Complete (1.31).
    `field_warnings`: unknown fields are told of, and fieldValidation=Strict is obeyed (1.25).
    `pod_batch_s`: what the Job controller waits before it looks at a pod's change; `phase_lag_s`: what the kubelet
    waits between the end of the last container and the pod's phase. Both measured on 1.36.2, absent on 1.20.2.
    `exec_needs_create`: a websocket's GET of pods/exec takes the right to create it too (1.35).
    """

    major: str = "1"
    minor: str = "36"
    suspend: bool = True
    ttl_after_finished: bool = True
    native_sidecars: bool = True
    pod_level_resources: bool = True
    target_conditions: bool = True
    tracking_finalizers: bool = True
    field_warnings: bool = True
    exec_needs_create: bool = True
    pod_batch_s: float = 1.0
    phase_lag_s: float = 1.0
    refused: frozenset[str] = frozenset()


CURRENT = Features()
# What of this the research page saw on a real 1.20.2.
OLD = Features(
    minor="20",
    suspend=False,
    ttl_after_finished=False,
    native_sidecars=False,
    pod_level_resources=False,
    target_conditions=False,
    tracking_finalizers=False,
    field_warnings=False,
    exec_needs_create=False,
    pod_batch_s=0.0,
    phase_lag_s=0.0,
)


def drop_missing(features: Features, kind: str, obj: Json) -> list[Cause]:
    """Takes out of a Job or Pod what this server does not have; the causes are what it refuses instead."""
    if kind not in {"Job", "Pod"}:
        return []
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    pod_spec, path = spec, "spec"
    if kind == "Job":
        pod_spec, path = (spec.get("template") or {}).get("spec") or {}, "spec.template.spec"
        drop(features, "suspend", spec, "suspend", "spec.suspend", causes)
        drop(
            features,
            "ttl_after_finished",
            spec,
            "ttlSecondsAfterFinished",
            "spec.ttlSecondsAfterFinished",
            causes,
        )
    drop(features, "pod_level_resources", pod_spec, "resources", f"{path}.resources", causes)
    for index, container in enumerate(pod_spec.get("initContainers") or []):
        at = f"{path}.initContainers[{index}].restartPolicy"
        drop(features, "native_sidecars", container, "restartPolicy", at, causes)
    return causes


def drop(features: Features, feature: str, holder: Json, key: str, path: str, causes: list[Cause]) -> None:
    if key not in holder or (getattr(features, feature) and feature not in features.refused):
        return
    if feature in features.refused:
        causes.append(forbidden_field(path, "may not be set"))
    else:
        del holder[key]
