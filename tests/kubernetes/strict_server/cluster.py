"""The verbs on objects: create, replace, delete, with what the server checks and fills in around the store."""

import copy
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from tests.kubernetes.strict_server import quota
from tests.kubernetes.strict_server.causes import unsupported
from tests.kubernetes.strict_server.clock import Clock, seconds_text
from tests.kubernetes.strict_server.defaults import fill_in
from tests.kubernetes.strict_server.features import Features, drop_missing
from tests.kubernetes.strict_server.pod_validation import environment_warnings
from tests.kubernetes.strict_server.resources import JOBS, NAMESPACES, PODS, Resource
from tests.kubernetes.strict_server.status import (
    already_exists,
    bad_request,
    conflict,
    invalid,
    invalid_object,
    modified,
    not_found,
    refusal,
    success,
)
from tests.kubernetes.strict_server.store import Store
from tests.kubernetes.strict_server.validation import creation_causes, update_causes

Json = dict[str, Any]
POLICIES = ("Foreground", "Background", "Orphan")
SERVERS_OWN = (
    "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "namespace", "generation", "name",
)  # fmt: skip
NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
ORPHANED = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


@dataclass
class Cluster:
    clock: Clock
    features: Features
    store: Store = field(default_factory=Store)
    random: Random = field(default_factory=lambda: Random(7))

    def now_text(self) -> str:
        return seconds_text(self.clock.now())

    def create(
        self, resource: Resource, namespace: str, obj: Json, *, dry_run: bool = False
    ) -> tuple[Json, list[str]]:
        """The stored object and the warnings; Refusal for every reason why it may not be stored."""
        obj = copy.deepcopy(obj)
        metadata = obj.setdefault("metadata", {})
        if resource.namespaced:
            if metadata.setdefault("namespace", namespace) != namespace:
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            if self.store.get(NAMESPACES, "", namespace) is None:
                raise not_found(NAMESPACES, namespace)
        if metadata.get("resourceVersion"):
            raise refusal(500, "resourceVersion should not be set on objects to be created")
        self._prepare_new(resource, obj)
        name = metadata.get("name", "")
        causes = drop_missing(self.features, resource.kind, obj) + creation_causes(resource, obj)
        if causes:
            raise invalid_object(resource, name, causes)
        if self.store.get(resource, namespace, name) is not None:
            raise already_exists(resource, name)
        quota.admit(self.store, resource, obj)
        return (obj if dry_run else self.store.put(resource, obj)), self._warnings(resource, obj)

    def _prepare_new(self, resource: Resource, obj: Json) -> None:
        metadata = obj["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + "".join(self.random.choices(NAME_LETTERS, k=5))
        for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"):
            metadata.pop(key, None)
        metadata["uid"] = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        metadata["creationTimestamp"] = self.now_text()
        obj.pop("status", None)
        if "spec" in resource.model.__annotations__ or resource in (JOBS, PODS):
            metadata["generation"] = 1
        fill_in(resource.kind, obj)
        if resource == JOBS:
            if self.features.suspend:
                obj["spec"].setdefault("suspend", False)
            obj["status"] = {}
        elif resource == PODS:
            obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        elif resource == NAMESPACES:
            obj["status"] = {"phase": "Active"}

    def _warnings(self, resource: Resource, obj: Json) -> list[str]:
        if resource != JOBS or not self.features.field_warnings:
            return []
        warnings = environment_warnings(obj["spec"]["template"]["spec"], "spec.template.spec")
        if "." in obj["metadata"]["name"]:
            warnings.append(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a "
                "DNS label is recommended: [must not contain dots]"
            )
        return warnings

    def require(self, resource: Resource, namespace: str, name: str) -> Json:
        found = self.store.get(resource, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return found

    def replace(
        self, resource: Resource, before: Json, after: Json, *, subresource: str = "", dry_run: bool = False
    ) -> Json:
        """What PUT and every PATCH come to. `after` may carry a resourceVersion and a uid that must still be right."""
        name, old = before["metadata"]["name"], before["metadata"]
        new = after.setdefault("metadata", {})
        if new.get("name", name) != name:
            raise bad_request(
                f"the name of the object ({new['name']}) does not match the name on the URL ({name})"
            )
        if new.get("uid", old["uid"]) != old["uid"]:
            why = f"Precondition failed: UID in precondition: {new['uid']}, UID in object meta: {old['uid']}"
            raise conflict(resource, name, why)
        if new.get("resourceVersion", old["resourceVersion"]) != old["resourceVersion"]:
            raise modified(resource, name)
        merged = self._merge_update(resource, before, after, subresource)
        if causes := drop_missing(self.features, resource.kind, merged):
            raise invalid_object(resource, name, causes)
        if not subresource and (causes := update_causes(resource, before, merged)):
            raise invalid_object(resource, name, causes)
        return merged if dry_run else self.save(resource, merged)

    def _merge_update(self, resource: Resource, before: Json, after: Json, subresource: str) -> Json:
        """Status comes by its subresource only, everything else never by it; what the server owns stays."""
        if subresource == "status":
            return {**before, "status": after.get("status") or {}}
        metadata = {key: value for key, value in after["metadata"].items() if key not in SERVERS_OWN}
        metadata |= {key: before["metadata"][key] for key in SERVERS_OWN if key in before["metadata"]}
        merged = {**after, "metadata": metadata}
        fill_in(resource.kind, merged)
        if "status" in before and resource.subresources.get("status"):
            merged["status"] = before["status"]
        if before.get("spec") != merged.get("spec") and "generation" in metadata:
            metadata["generation"] += 1
        return merged

    def save(self, resource: Resource, obj: Json) -> Json:
        """Stores, and ends what waits for deletion and has no finalizer left."""
        metadata = obj["metadata"]
        if not metadata.get("finalizers"):
            metadata.pop("finalizers", None)
            if metadata.get("deletionTimestamp") and not metadata.get("deletionGracePeriodSeconds"):
                return self.store.remove(resource, obj)
        return self.store.put(resource, obj)

    def delete(self, resource: Resource, namespace: str, name: str, options: Json) -> tuple[Json, list[str]]:
        """What DELETE answers: a Status where the object is gone, the object where it still has to go."""
        policy = options.get("propagationPolicy")
        if policy not in {None, *POLICIES}:
            cause = unsupported("propagationPolicy", policy, (*POLICIES, "nil"))
            raise invalid(
                "DeleteOptions.meta.k8s.io", {"group": "meta.k8s.io", "kind": "DeleteOptions"}, [cause]
            )
        obj = self.require(resource, namespace, name)
        self._check_preconditions(resource, obj, options.get("preconditions") or {})
        warnings = [ORPHANED] if resource == JOBS and policy is None and self.features.field_warnings else []
        if resource == PODS:
            return self._delete_pod(obj, options.get("gracePeriodSeconds")), warnings
        metadata = obj["metadata"]
        if policy == "Foreground":
            metadata["finalizers"] = sorted({*metadata.get("finalizers", []), "foregroundDeletion"})
        elif policy == "Orphan" or (policy is None and resource == JOBS):
            metadata["finalizers"] = sorted({*metadata.get("finalizers", []), "orphan"})
        if metadata.get("finalizers"):
            return self.mark_deleted(resource, obj, 0), warnings
        self.store.remove(resource, obj)
        details = {"name": name, "group": resource.group, "kind": resource.plural, "uid": metadata["uid"]}
        return success({key: value for key, value in details.items() if value}), warnings

    def _check_preconditions(self, resource: Resource, obj: Json, wanted: Json) -> None:
        metadata = obj["metadata"]
        words = {
            "uid": ("UID", "deleted and then recreated"),
            "resourceVersion": ("ResourceVersion", "modified"),
        }
        for key, (called, what) in words.items():
            if wanted.get(key) and wanted[key] != metadata[key]:
                why = (
                    f"the {called} in the precondition ({wanted[key]}) does not match the {called} in record "
                    f"({metadata[key]}). The object might have been {what}"
                )
                raise conflict(resource, metadata["name"], why, by_kind=True)

    def _delete_pod(self, pod: Json, grace_s: int | None) -> Json:
        """A pod on no node, or ended, goes at once; any other keeps its grace, which may only become shorter."""
        asked = pod["spec"]["terminationGracePeriodSeconds"] if grace_s is None else grace_s
        if not pod["spec"].get("nodeName") or pod["status"].get("phase") in {"Succeeded", "Failed"}:
            asked = 0
        if "deletionTimestamp" in pod["metadata"] and asked >= pod["metadata"]["deletionGracePeriodSeconds"]:
            return pod
        return self.mark_deleted(PODS, pod, asked)

    def mark_deleted(self, resource: Resource, obj: Json, grace_s: int) -> Json:
        metadata = obj["metadata"]
        metadata["deletionTimestamp"] = seconds_text(self.clock.now() + timedelta(seconds=grace_s))
        metadata["deletionGracePeriodSeconds"] = grace_s
        if "generation" in metadata:
            metadata["generation"] += 1
        return self.save(resource, obj)

    def set_status(self, resource: Resource, obj: Json, status: Json) -> Json | None:
        """How a controller writes; None where the object went away meanwhile."""
        current = self.store.get(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if current is None or current["metadata"]["uid"] != obj["metadata"]["uid"]:
            return None
        return self.save(resource, {**current, "status": copy.deepcopy(status)})
