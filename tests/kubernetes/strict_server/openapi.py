"""/openapi/v3 as far as a client looks up whether a field exists there."""

from typing import Any

from lightkube.models import batch_v1, core_v1

from tests.kubernetes.strict_server.features import Features
from tests.kubernetes.strict_server.schema import fields_of

Json = dict[str, Any]
MODELS = {
    "io.k8s.api.batch.v1.Job": batch_v1.Job,
    "io.k8s.api.batch.v1.JobSpec": batch_v1.JobSpec,
    "io.k8s.api.core.v1.Container": core_v1.Container,
    "io.k8s.api.core.v1.PodSpec": core_v1.PodSpec,
    "io.k8s.api.core.v1.PodTemplateSpec": core_v1.PodTemplateSpec,
}
MISSING = {
    "suspend": ("io.k8s.api.batch.v1.JobSpec", "suspend"),
    "ttl_after_finished": ("io.k8s.api.batch.v1.JobSpec", "ttlSecondsAfterFinished"),
    "native_sidecars": ("io.k8s.api.core.v1.Container", "restartPolicy"),
    "pod_level_resources": ("io.k8s.api.core.v1.PodSpec", "resources"),
}


def openapi_document(features: Features, group: str, version: str) -> Json | None:
    """Served from 1.24 on; an older server has no such page."""
    if (group, version) not in {("batch", "v1"), ("", "v1")} or int(features.minor) < 24:
        return None
    schemas: dict[str, Json] = {
        name: {"type": "object", "properties": {field: {} for field in fields_of(model)}}
        for name, model in MODELS.items()
    }
    for feature, (schema, field) in MISSING.items():
        if not getattr(features, feature):
            del schemas[schema]["properties"][field]
    info = {"title": "Kubernetes", "version": f"v{features.major}.{features.minor}.0"}
    return {"openapi": "3.0.0", "info": info, "paths": {}, "components": {"schemas": schemas}}
