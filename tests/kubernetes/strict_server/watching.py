"""Watches: what a client sees of the store's history from a revision on, through its selector."""

import json
from collections.abc import AsyncIterator
from typing import Any

from tests.kubernetes.strict_server.clock import Clock
from tests.kubernetes.strict_server.exchange import CutConnection, Request
from tests.kubernetes.strict_server.faults import Faults
from tests.kubernetes.strict_server.resources import Resource
from tests.kubernetes.strict_server.selectors import Matcher
from tests.kubernetes.strict_server.status import expired, refusal
from tests.kubernetes.strict_server.store import Change, Store

Json = dict[str, Any]
BOOKMARK_S = 60
DEFAULT_TIMEOUT_S = 1800


class Watch:
    def __init__(self, resource: Resource, namespace: str | None, match: Matcher, request: Request) -> None:
        self.resource, self.namespace, self.match = resource, namespace, match
        self.request = request
        self.wants_bookmarks = request.flag("allowWatchBookmarks")
        self.is_over = False
        self.is_cut = False
        self.bookmarks_due = 0

    def events(self, change: Change) -> list[Json]:
        """The change as the selector shows it: an object that stops to fit is DELETED, one that comes to fit ADDED."""
        if change.resource != self.resource or self.namespace not in (
            None,
            change.after["metadata"].get("namespace"),
        ):
            return []
        fitted = change.before is not None and self.match(change.before)
        fits = change.type != "DELETED" and self.match(change.after)
        if fits:
            return [event("MODIFIED" if fitted else "ADDED", change.after)]
        if not fitted:
            return []
        if change.type == "DELETED":
            return [event("DELETED", change.after)]
        assert change.before is not None
        revision = change.after["metadata"]["resourceVersion"]
        return [
            event(
                "DELETED",
                {**change.before, "metadata": {**change.before["metadata"], "resourceVersion": revision}},
            )
        ]


class Watches:
    """All watches that are open: a test may cut them, or have bookmarks sent."""

    def __init__(self, store: Store, clock: Clock, faults: Faults) -> None:
        self._store, self._clock, self._faults = store, clock, faults
        self.open: set[Watch] = set()

    def cut(self) -> None:
        """Every open watch loses its connection."""
        for watch in self.open:
            watch.is_cut = True
        self._store.wake()

    def end(self) -> None:
        """Every open watch ends tidily, as at its time-out."""
        for watch in self.open:
            watch.is_over = True
        self._store.wake()

    def send_bookmarks(self) -> None:
        for watch in self.open:
            watch.bookmarks_due += 1
        self._store.wake()

    async def stream(self, watch: Watch) -> AsyncIterator[bytes]:
        """Raises Refusal before its first chunk for a revision that is no number."""
        timeout_s = watch.request.number("timeoutSeconds") or DEFAULT_TIMEOUT_S
        self._clock.call_later(timeout_s, lambda: self._over(watch))
        self._clock.call_later(BOOKMARK_S, lambda: self._bookmark_again(watch))
        self.open.add(watch)
        sent = 0
        try:
            async for made in self._events(watch):
                yield json.dumps(made, separators=(",", ":")).encode() + b"\n"
                sent += 1
                if self._faults.watch_events_max is not None and sent >= self._faults.watch_events_max:
                    if self._faults.watch_cut:
                        raise CutConnection
                    return
        finally:
            self.open.discard(watch)

    async def _events(self, watch: Watch) -> AsyncIterator[Json]:
        revision = revision_of(watch.request)
        if revision and revision < self._store.floor:
            words = f"too old resource version: {revision} ({self._store.floor})"
            yield {"type": "ERROR", "object": expired(words).body}
            return
        if not revision:
            revision = self._store.revision
            for made in self._initial_events(watch, revision):
                yield made
        position = 0
        while True:
            if watch.is_cut:
                raise CutConnection
            while position < len(self._store.history):
                change = self._store.history[position]
                position += 1
                if change.revision > revision:
                    revision = change.revision
                    for made in watch.events(change):
                        yield made
            if watch.bookmarks_due and watch.wants_bookmarks:
                watch.bookmarks_due = 0
                yield bookmark(watch.resource, max(revision, self._store.revision), {})
                continue
            if watch.is_over:
                return
            await self._store.changed()

    def _initial_events(self, watch: Watch, revision: int) -> list[Json]:
        """What is there already, where the watch names no revision to begin at."""
        found = [
            event("ADDED", obj)
            for obj in self._store.select(watch.resource, watch.namespace)
            if watch.match(obj)
        ]
        if watch.wants_bookmarks:
            found.append(bookmark(watch.resource, revision, {"k8s.io/initial-events-end": "true"}))
        return found

    def _over(self, watch: Watch) -> None:
        watch.is_over = True
        self._store.wake()

    def _bookmark_again(self, watch: Watch) -> None:
        if watch in self.open:
            watch.bookmarks_due += 1
            self._store.wake()
            self._clock.call_later(BOOKMARK_S, lambda: self._bookmark_again(watch))


def revision_of(request: Request) -> int:
    """0 where none is asked for."""
    text = request.first("resourceVersion")
    if text and not text.isdecimal():
        words = (
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
        raise refusal(500, words)
    return int(text or 0)


def event(kind: str, obj: Json) -> Json:
    return {"type": kind, "object": obj}


def bookmark(resource: Resource, revision: int, annotations: dict[str, str]) -> Json:
    metadata: Json = {"resourceVersion": str(revision)}
    if annotations:
        metadata["annotations"] = annotations
    return event(
        "BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    )
