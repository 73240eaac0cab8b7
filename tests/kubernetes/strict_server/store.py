"""The objects, their revisions, and the history that watches and consistent lists read."""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.kubernetes.strict_server.resources import Resource

Json = dict[str, Any]


class Key(NamedTuple):
    namespace: str
    name: str


@dataclass(frozen=True)
class Change:
    """`before` is None for ADDED; `after` of DELETED is the last state with the revision of the deletion."""

    revision: int
    type: str
    resource: Resource
    before: Json | None
    after: Json


class Store:
    """`floor` is the oldest revision from which history is still complete: etcd's compaction."""

    def __init__(self) -> None:
        self.revision = 1000
        self.floor = 1000
        self.history: list[Change] = []
        self.listeners: list[Callable[[Change], None]] = []
        self._objects: dict[tuple[Resource, Key], Json] = {}
        self._waiters: set[asyncio.Future[None]] = set()

    def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        return copy.deepcopy(self._objects.get((resource, Key(namespace, name))))

    def select(self, resource: Resource, namespace: str | None = None) -> list[Json]:
        """All of one resource in the order of their keys, in one namespace or in every one."""
        keys = sorted(
            key for kind, key in self._objects if kind == resource and namespace in (None, key.namespace)
        )
        return [copy.deepcopy(self._objects[resource, key]) for key in keys]

    def put(self, resource: Resource, obj: Json) -> Json:
        """Stores as a new revision, which is written into the object; nothing happens where nothing changes."""
        key = (resource, key_of(obj))
        before = self._objects.get(key)
        if before is not None and without_revision(before) == without_revision(obj):
            return copy.deepcopy(before)
        after = self._stamped(obj)
        self._objects[key] = after
        self._record("MODIFIED" if before else "ADDED", resource, before, after)
        return copy.deepcopy(after)

    def remove(self, resource: Resource, obj: Json) -> Json:
        key = (resource, key_of(obj))
        before = self._objects.pop(key)
        after = self._stamped(obj)
        self._record("DELETED", resource, before, after)
        return copy.deepcopy(after)

    def _stamped(self, obj: Json) -> Json:
        self.revision += 1
        after = copy.deepcopy(obj)
        after["metadata"]["resourceVersion"] = str(self.revision)
        return after

    def _record(self, kind: str, resource: Resource, before: Json | None, after: Json) -> None:
        change = Change(self.revision, kind, resource, before, after)
        self.history.append(change)
        self.wake()
        for listener in self.listeners:
            listener(change)

    def at(self, revision: int, resource: Resource, namespace: str | None) -> list[Json]:
        """The objects as they were at a revision that is not below the floor."""
        objects: dict[Key, Json] = {}
        for change in self.history:
            if change.resource != resource or change.revision > revision:
                continue
            if change.type == "DELETED":
                objects.pop(key_of(change.after), None)
            else:
                objects[key_of(change.after)] = change.after
        keys = sorted(key for key in objects if namespace in (None, key.namespace))
        return [copy.deepcopy(objects[key]) for key in keys]

    def compact(self) -> None:
        """Forgets how it came to be: a watch or a continued list of an older revision gets 410."""
        self.floor = self.revision

    def wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def changed(self) -> None:
        """Until the next change, or until somebody calls `wake`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


def key_of(obj: Json) -> Key:
    return Key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def without_revision(obj: Json) -> Json:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    return {**obj, "metadata": metadata}
