"""What the cluster has and lacks, read now and then for the answers to `can_dequeue`: quotas, runtime classes, nodes,
and the words of the Job controller and the scheduler about attempts that wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from runyard.model.errors import ProviderDenied, ProviderError
from runyard.model.pool import WaitCode
from runyard.providers.kubernetes.admission import ClusterFacts, Stuck
from runyard.providers.kubernetes.attempt_views import AttemptView, AttemptViews
from runyard.providers.kubernetes.client import (
    EVENTS,
    NODES,
    QUOTAS,
    RUNTIME_CLASSES,
    Document,
    Kind,
    KubernetesClient,
)
from runyard.providers.kubernetes.manifest import ServerFeatures
from runyard.providers.kubernetes.options import KubernetesOptions
from runyard.providers.kubernetes.sighting import Running, Sighting, Waiting, read_sighting

QUOTAS_S = 2.0
CLASSES_S = 60.0
EVENTS_S = 3.0
QUIET_S = 2.0
"""A Job gets its pod within milliseconds. One without it for so long is asked about."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """`labels`: arch and os, where all nodes agree and may be read."""

    labels: Mapping[str, str] = field(default_factory=dict)


async def read_nodes(client: KubernetesClient, options: KubernetesOptions) -> NodeFacts:
    """Of the nodes on which the pool's pods may run. Empty where they may not be read."""
    selector = ",".join(f"{key}={value}" for key, value in options.node_selector.items())
    try:
        nodes = (await client.list(NODES, labels=selector, names_only=True)).items
    except ProviderError as error:
        log.info("kubernetes_nodes_unread", error=error.message)
        return NodeFacts()
    found: dict[str, str] = {}
    for name in ("arch", "os"):
        values = {(node["metadata"].get("labels") or {}).get(f"kubernetes.io/{name}") for node in nodes}
        if len(values) == 1 and (value := values.pop()):
            found[name] = value
    return NodeFacts(found)


async def read_features(client: KubernetesClient) -> ServerFeatures:
    """What the server's own schema has. A server without OpenAPI v3 (older than 1.24) has none of it, and where it may
    not be read nothing is taken for granted. Raises ProviderError where there is no answer."""
    try:
        document = await client.read_path("openapi/v3/api/v1")
    except ProviderDenied as error:
        log.warning("kubernetes_schema_unread", error=error.message)
        document = None
    schemas = ((document or {}).get("components") or {}).get("schemas") or {}
    container = schemas.get("io.k8s.api.core.v1.Container") or {}
    return ServerFeatures(has_native_sidecars="restartPolicy" in (container.get("properties") or {}))


class FactsReader:
    """Reads on demand and remembers for a while; one task looks for the reasons of Jobs that have no pod."""

    def __init__(self, client: KubernetesClient, views: AttemptViews, options: KubernetesOptions) -> None:
        self._client = client
        self._views = views
        self._options = options
        self._quotas: tuple[Document, ...] = ()
        self._quotas_at = self._classes_at = -1e9
        self._missing = ""
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._look_for_reasons())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def read(self) -> ClusterFacts:
        async with self._reading:
            if time.monotonic() - self._quotas_at > QUOTAS_S:
                self._quotas = await self._list_quotas()
                self._quotas_at = time.monotonic()
            if time.monotonic() - self._classes_at > CLASSES_S or self._missing:
                self._missing = await self._find_missing()
                self._classes_at = time.monotonic()
        return ClusterFacts(
            quotas=self._quotas, missing=self._missing, stuck=stuck_classes(self._views.followed)
        )

    async def _list_quotas(self) -> tuple[Document, ...]:
        listing = await self._optionally(QUOTAS)
        return listing if listing is not None else self._quotas

    async def _find_missing(self) -> str:
        name = self._options.runtime_class
        if name is None:
            return ""
        try:
            found = await self._client.read(RUNTIME_CLASSES, name)
        except ProviderError:
            return ""  # it may not be read, or not now: the pod itself will tell
        return "" if found is not None else f"the cluster has no RuntimeClass {name!r}"

    async def _optionally(self, kind: Kind, *, fields: str = "") -> tuple[Document, ...] | None:
        try:
            return (await self._client.list(kind, fields=fields)).items
        except ProviderError as error:
            log.debug("kubernetes_unread", kind=kind.name, error=error.message)
            return None

    async def _look_for_reasons(self) -> None:
        """One listing for all that wait, only while some do: events are the one place that says these things."""
        while True:
            await asyncio.sleep(EVENTS_S)
            now = self._client.now()
            podless, pulling = [], []
            for view in self._views.followed:
                sighting = read_sighting(view.job, view.pod)
                if waits_for_pod(sighting, now):
                    podless.append(view)
                elif waits_for_image(sighting):
                    pulling.append(view)
                else:
                    view.note_words("")
            if podless:
                events = await self._optionally(EVENTS, fields="reason=FailedCreate,involvedObject.kind=Job")
                words = newest_words(events or ())
                for view in podless:
                    view.note_words(words.get(view.name, "").removeprefix("Error creating: "))
            if pulling:
                events = await self._optionally(EVENTS, fields="reason=Pulling,involvedObject.kind=Pod")
                words = newest_words(events or ())
                for view in pulling:
                    view.note_words(words.get(view.pod["metadata"]["name"] if view.pod else "", ""))


def waits_for_pod(sighting: Sighting, now: float) -> bool:
    began = sighting.start_clock
    return sighting.has_job and not sighting.has_pod and began is not None and now - began > QUIET_S


def waits_for_image(sighting: Sighting) -> bool:
    """Placed, and a container is not started for no reason that the pod itself tells."""
    states = (sighting.prepare, *sighting.steps)
    if not sighting.is_scheduled or isinstance(sighting.prepare, Running):
        return False
    waiting = next((state for state in states if isinstance(state, Waiting)), None)
    return waiting is not None and waiting.reason in ("", "ContainerCreating", "PodInitializing")


def newest_words(events: Iterable[Document]) -> dict[str, str]:
    """By the object's name, what its newest event says."""
    found: dict[str, tuple[str, str]] = {}
    for event in events:
        name = str((event.get("involvedObject") or {}).get("name", ""))
        at = str(event.get("lastTimestamp") or event.get("eventTime") or "")
        words = str(event.get("message") or "")
        if name and at >= found.get(name, ("", ""))[0]:
            found[name] = (at, words)
    return {name: words for name, (_, words) in found.items()}


def stuck_classes(views: Iterable[AttemptView]) -> dict[str, Stuck]:
    """The classes of which an attempt waits for room in the cluster."""
    found: dict[str, Stuck] = {}
    for view in views:
        if view.requirements is None:
            continue
        stuck = _stuck(view)
        if stuck is not None:
            found[view.requirements.class_key()] = stuck
    return found


def _stuck(view: AttemptView) -> Stuck | None:
    sighting = read_sighting(view.job, view.pod)
    if sighting.unschedulable and not sighting.is_scheduled and not sighting.is_deleted:
        return Stuck(code=WaitCode.POOL_FULL, words=f"the cluster has no room: {sighting.unschedulable}")
    if view.words and not sighting.has_pod:
        code = WaitCode.QUOTA if "exceeded quota" in view.words else WaitCode.POOL_UNHEALTHY
        return Stuck(code=code, words=f"the cluster makes no pod: {view.words}")
    if sighting.is_suspended:
        return Stuck(code=WaitCode.POOL_FULL, words="the cluster's own queue holds its Jobs back (suspended)")
    return None
