"""Which resources the server has, their verbs and models, and the discovery documents made of them."""

from dataclasses import dataclass, field
from typing import Any

from lightkube.models import (
    apps_v1,
    authorization_v1,
    batch_v1,
    coordination_v1,
    core_v1,
    networking_v1,
    node_v1,
    policy_v1,
    scheduling_v1,
)

Json = dict[str, Any]
EVERY_VERB = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True)
class Resource:
    """`model` is lightkube's class of the kind: the field names and JSON types that the server knows."""

    group: str
    version: str
    plural: str
    kind: str
    model: type
    namespaced: bool = True
    verbs: tuple[str, ...] = EVERY_VERB
    subresources: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict, hash=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`jobs.batch`: how messages name the resource."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", core_v1.Namespace, namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", core_v1.Node, namespaced=False)
PODS = Resource(
    "", "v1", "pods", "Pod", core_v1.Pod,
    subresources={
        "eviction": ("Eviction", ("create",)),
        "exec": ("PodExecOptions", ("create", "get")),
        "log": ("Pod", ("get",)),
        "status": ("Pod", STATUS_VERBS),
    },
)  # fmt: skip
SECRETS = Resource("", "v1", "secrets", "Secret", core_v1.Secret)
QUOTAS = Resource(
    "", "v1", "resourcequotas", "ResourceQuota", core_v1.ResourceQuota,
    subresources={"status": ("ResourceQuota", STATUS_VERBS)},
)  # fmt: skip
EVENTS = Resource("", "v1", "events", "Event", core_v1.Event)
JOBS = Resource("batch", "v1", "jobs", "Job", batch_v1.Job, subresources={"status": ("Job", STATUS_VERBS)})
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview",
    authorization_v1.SelfSubjectAccessReview, namespaced=False, verbs=("create",),
)  # fmt: skip
RULES_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview",
    authorization_v1.SelfSubjectRulesReview, namespaced=False, verbs=("create",),
)  # fmt: skip
EVICTIONS = Resource("policy", "v1", "evictions", "Eviction", policy_v1.Eviction)

RESOURCES = (
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    QUOTAS,
    EVENTS,
    Resource("", "v1", "configmaps", "ConfigMap", core_v1.ConfigMap),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", core_v1.ServiceAccount),
    Resource("", "v1", "limitranges", "LimitRange", core_v1.LimitRange),
    Resource("apps", "v1", "deployments", "Deployment", apps_v1.Deployment),
    JOBS,
    ACCESS_REVIEWS,
    RULES_REVIEWS,
    Resource("coordination.k8s.io", "v1", "leases", "Lease", coordination_v1.Lease),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", networking_v1.NetworkPolicy),
    Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", node_v1.RuntimeClass, namespaced=False),
    Resource(
        "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", scheduling_v1.PriorityClass, namespaced=False
    ),
)  # fmt: skip


def find_resource(group: str, version: str, plural: str) -> Resource | None:
    wanted = (group, version, plural)
    return next((each for each in RESOURCES if (each.group, each.version, each.plural) == wanted), None)


def version_document(major: str, minor: str) -> Json:
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{major}.{minor}.0",
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.27.3",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def core_versions() -> Json:
    served = {"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [served]}


def group_document(group: str) -> Json | None:
    versions = sorted({each.version for each in RESOURCES if each.group == group})
    if not group or not versions:
        return None
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[-1]}


def group_list() -> Json:
    groups = sorted({each.group for each in RESOURCES if each.group})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group_document(group) for group in groups]}


def resource_list(group: str, version: str) -> Json | None:
    served = [each for each in RESOURCES if (each.group, each.version) == (group, version)]
    if not served:
        return None
    listed: list[Json] = []
    for each in served:
        about = {"namespaced": each.namespaced, "kind": each.kind, "verbs": list(each.verbs)}
        listed.append({"name": each.plural, "singularName": each.kind.lower(), **about})
        for name, (kind, verbs) in each.subresources.items():
            about = {"namespaced": each.namespaced, "kind": kind, "verbs": list(verbs)}
            listed.append({"name": f"{each.plural}/{name}", "singularName": "", **about})
    served_as = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": served_as, "resources": listed}
