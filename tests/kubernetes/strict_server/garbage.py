"""The garbage collector: what becomes of dependents when their owner goes."""

from typing import Any

from tests.kubernetes.strict_server.cluster import Cluster
from tests.kubernetes.strict_server.resources import RESOURCES, Resource
from tests.kubernetes.strict_server.store import Change

Json = dict[str, Any]
LAG_S = 0.03


class GarbageCollector:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        cluster.store.listeners.append(self._on_change)

    def _on_change(self, change: Change) -> None:
        finalizers = change.after["metadata"].get("finalizers") or []
        going = change.type == "DELETED" or {"orphan", "foregroundDeletion"} & set(finalizers)
        if going:
            self._cluster.clock.call_later(LAG_S, lambda: self._collect(change.resource, change.after))
        if change.type == "DELETED":
            for reference in change.after["metadata"].get("ownerReferences") or []:
                self._revisit_later(reference["uid"])

    def _revisit_later(self, uid: str) -> None:
        self._cluster.clock.call_later(LAG_S, lambda: self._revisit(uid))

    def _dependents(self, uid: str) -> list[tuple[Resource, Json]]:
        return [
            (resource, obj)
            for resource in RESOURCES
            for obj in self._cluster.store.select(resource)
            if any(each["uid"] == uid for each in obj["metadata"].get("ownerReferences") or [])
        ]

    def _revisit(self, uid: str) -> None:
        """A dependent is gone: its owner may be waiting for that."""
        for resource in RESOURCES:
            for obj in self._cluster.store.select(resource):
                if obj["metadata"]["uid"] == uid and "foregroundDeletion" in obj["metadata"].get(
                    "finalizers", []
                ):
                    self._collect(resource, obj)

    def _collect(self, resource: Resource, owner: Json) -> None:
        metadata = owner["metadata"]
        current = self._cluster.store.get(resource, metadata.get("namespace", ""), metadata["name"])
        alive = current is not None and current["metadata"]["uid"] == metadata["uid"]
        finalizers = set((current or {}).get("metadata", {}).get("finalizers") or []) if alive else set()
        dependents = self._dependents(metadata["uid"])
        if "orphan" in finalizers:
            for kind, obj in dependents:
                self._disown(kind, obj, metadata["uid"])
            self._release(resource, current, "orphan")
        elif "foregroundDeletion" in finalizers and not dependents:
            self._release(resource, current, "foregroundDeletion")
        elif not alive or "foregroundDeletion" in finalizers:
            for kind, obj in dependents:
                if "deletionTimestamp" not in obj["metadata"]:
                    place = obj["metadata"].get("namespace", "")
                    self._cluster.delete(
                        kind, place, obj["metadata"]["name"], {"propagationPolicy": "Background"}
                    )

    def _disown(self, resource: Resource, obj: Json, uid: str) -> None:
        kept = [each for each in obj["metadata"]["ownerReferences"] if each["uid"] != uid]
        obj["metadata"]["ownerReferences"] = kept
        if not kept:
            del obj["metadata"]["ownerReferences"]
        self._cluster.save(resource, obj)

    def _release(self, resource: Resource, obj: Json | None, finalizer: str) -> None:
        assert obj is not None
        obj["metadata"]["finalizers"] = [each for each in obj["metadata"]["finalizers"] if each != finalizer]
        self._cluster.save(resource, obj)
