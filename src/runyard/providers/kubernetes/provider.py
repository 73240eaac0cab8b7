"""The `kubernetes` provider: each attempt is one Job of one pod, in a namespace of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Sequence
from typing import TypeVar

import structlog

from runyard.model.attempt import AttemptKey
from runyard.model.errors import ConfigError, ProviderError, Unreachable
from runyard.model.finding import Finding
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, refused
from runyard.model.pool import Availability, Budget, Demand, PoolSettings, Supply
from runyard.model.requirements import Requirements
from runyard.providers.kubernetes import layout
from runyard.providers.kubernetes.admission import admit
from runyard.providers.kubernetes.attempt_place import AttemptPlaces, has_ended, time_of
from runyard.providers.kubernetes.attempt_views import AttemptViews, job_of
from runyard.providers.kubernetes.checks import run_checks
from runyard.providers.kubernetes.client import JOBS, PODS, SECRETS, KubernetesClient
from runyard.providers.kubernetes.cluster_access import reach_cluster
from runyard.providers.kubernetes.cluster_facts import FactsReader, NodeFacts, read_features, read_nodes
from runyard.providers.kubernetes.credentials import read_authorities, read_credentials
from runyard.providers.kubernetes.following import AttemptFollower, Cluster
from runyard.providers.kubernetes.manifest import (
    PoolFacts,
    ServerFeatures,
    input_secret,
    job_manifest,
    mark_secret,
    template_problems,
)
from runyard.providers.kubernetes.marks import EndMark
from runyard.providers.kubernetes.options import parse_options
from runyard.providers.kubernetes.shared_watch import SharedWatch
from runyard.providers.kubernetes.sighting import read_sighting
from runyard.providers.kubernetes.telling import was_seen
from runyard.providers.port import (
    AttemptRequest,
    Capabilities,
    PoolShape,
    ProviderConfig,
    Records,
    Resource,
    ResourceListing,
    RunContext,
)

SLOTS = 100
START_S = 10.0
BROKEN_S = 15.0
"""A watch that was not connected for so long: what is known of the cluster is old."""

T = TypeVar("T")

log = structlog.get_logger()


class KubernetesProvider:
    """Reads its options at once, and reaches for the cluster in `start`; keeps nothing on this host."""

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._options = parse_options(config.pool, config.options)
        problems = template_problems(self._options)
        if problems:
            raise ConfigError(
                "; ".join(f"pools.{config.pool}.{problem}" for problem in problems),
                field=f"pools.{config.pool}.pod_template",
                cure="leave to Runyard what is its own, and say the rest",
            )
        self._views = AttemptViews()
        self._nodes = NodeFacts()
        self._cluster: Cluster | None = None
        self._facts: PoolFacts | None = None
        self._features: ServerFeatures | None = None
        self._reading_features = asyncio.Lock()
        self._reader: FactsReader | None = None
        self._watches: list[SharedWatch] = []

    # -- its life -------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Raises ConfigError where no cluster is named. One that does not answer is waited for in the background: its
        attempts run on, and whoever starts beside it must not fail for it."""
        options, pool = self._options, self._config.pool
        access = await asyncio.to_thread(
            reach_cluster,
            kubeconfig=options.kubeconfig,
            context=options.context,
            field=f"pools.{pool}.kubeconfig",
        )
        client = KubernetesClient(access.http, namespace=options.namespace or access.namespace)
        self._facts = PoolFacts(
            pool=pool,
            installation=self._config.installation,
            namespace=client.namespace,
            image=options.image or await self._own_image(client),
        )
        labels = {
            layout.MANAGED_BY: layout.RUNYARD,
            layout.INSTALLATION: self._config.installation,
            layout.POOL: pool,
        }
        places = AttemptPlaces(client, self._views, pool=pool, labels=labels)
        self._cluster = Cluster(client, places, options)
        self._reader = FactsReader(client, self._views, options)
        selector = selector_of(labels)
        self._watches = [
            SharedWatch(client, kind, labels=selector, listen=listen)
            for kind, listen in ((JOBS, self._views.note_job), (PODS, self._views.note_pod))
        ]
        for watch in self._watches:
            watch.start()
        self._reader.start()
        with contextlib.suppress(TimeoutError, ProviderError):
            async with asyncio.timeout(START_S):
                self._nodes = await read_nodes(client, options)
                for watch in self._watches:
                    await watch.synced()

    async def close(self) -> None:
        for watch in self._watches:
            await watch.close()
        if self._reader is not None:
            await self._reader.close()
        if self._cluster is not None:
            await self._cluster.client.close()

    async def _own_image(self, client: KubernetesClient) -> str:
        """The image of the pod that this service is. Raises ConfigError where it is none."""
        field = f"pools.{self._config.pool}.image"
        cure = f"set {field} to the platform's image (deploy/kubernetes says how it is made)"
        name = os.environ.get("HOSTNAME", "")
        if not os.environ.get("KUBERNETES_SERVICE_HOST"):
            raise ConfigError(f"{field}: there is no default outside a cluster", field=field, cure=cure)
        try:
            pod = await client.read(PODS, name)
        except ProviderError as error:
            raise ConfigError(
                f"{field}: the service's own pod cannot be read: {error.message}", field=field, cure=cure
            ) from None
        containers = (pod or {}).get("spec", {}).get("containers") or []
        if not containers:
            raise ConfigError(f"{field}: there is no pod {name!r} here", field=field, cure=cure)
        ours = next((one for one in containers if one.get("name") == "runyard"), containers[0])
        return str(ours["image"])

    # -- what it has ----------------------------------------------------------------------------------------------
    @property
    def capabilities(self) -> Capabilities:
        options = self._options
        by = f"runtime class {options.runtime_class}" if options.runtime_class else "containers of a cluster"
        return Capabilities(
            isolation=options.isolation,
            has_images=True,
            can_lose_log_lines=True,
            labels={**self._nodes.labels, **options.labels},
            description=f"{by}, unprivileged and with seccomp; stdout and stderr are one stream; "
            "networks are apart where the cluster enforces NetworkPolicies",
        )

    @property
    def shape(self) -> PoolShape:
        options = self._options
        return PoolShape(
            slots=self._config.slots or SLOTS,
            budget=Budget(
                cpu_millis=options.cpu_millis or 10**9, memory_bytes=options.memory_bytes or 1 << 60
            ),
        )

    async def can_dequeue(self, requirements: Requirements) -> Availability:
        self._need_current()
        pool = self._pool_settings()
        facts = await _started(self._reader).read()
        return admit(requirements, pool=pool, facts=facts, priority_class=self._options.priority_class)

    async def handle_queue_size(self, demand: Demand, records: Records) -> Supply:
        slots = self.shape.slots
        return Supply(slots=slots, idle=max(0, slots - demand.starting - demand.running))

    # -- attempts -------------------------------------------------------------------------------------------------
    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        cluster, facts, options = _started(self._cluster), _started(self._facts), self._options
        name = attempt.key.resource_name
        wrong = secrets_problem(attempt)
        if wrong:
            return refused(ReasonCode.REQUIREMENTS, f"pool '{self._config.pool}' {wrong}")
        await self._synced()
        credentials = await asyncio.to_thread(read_credentials, options, attempt.spec)
        authorities = await asyncio.to_thread(read_authorities, options)
        secret = input_secret(attempt, options, facts, credentials=credentials, authorities=authorities)
        job = job_manifest(attempt, options, await self._read_features(cluster.client), facts)
        with self._views.following(name) as (view, changed):
            view.requirements = attempt.spec.requirements
            place = await cluster.places.start(secret, job, context.may_create)
            if place.job is not None and view.job is None:
                view.note_job(place.job, is_gone=False)
            if place.marks.end is None and place.marks.stop is not None:
                if place.job is None and place.marks.job_uid is None:
                    return await self._never_started(attempt.key, place.marks.version)
                await cluster.places.end(name, grace_s=place.marks.stop.grace_s)
            follower = AttemptFollower(attempt, context, cluster=cluster, place=place, view=view)
            return await follower.follow(changed)

    async def _read_features(self, client: KubernetesClient) -> ServerFeatures:
        """Once for each life of the service: an older server would drop what it does not know without a word."""
        async with self._reading_features:  # a crowd of first jobs reads it once
            if self._features is None:
                self._features = await read_features(client)
            return self._features

    async def _never_started(self, key: AttemptKey, version: str) -> Outcome:
        reason = Reason(code=ReasonCode.CANCELED, message="canceled on request, before it started")
        outcome = Outcome(kind=OutcomeKind.CANCELED, reason=reason, was_seen=False)
        end = EndMark(outcome=outcome)
        return (
            await _started(self._cluster).places.record_end(key.resource_name, end, version=version)
        ).outcome

    async def stop_job(self, key: AttemptKey, *, grace_s: float) -> None:
        cluster, name = _started(self._cluster), key.resource_name
        seen = any(was_seen(read_sighting(None, pod)) for pod in self._views.pods_of(name))
        bare = mark_secret(key, _started(self._facts))
        await cluster.places.stop(key, bare, grace_s=grace_s, was_seen=seen)

    # -- resources ------------------------------------------------------------------------------------------------
    async def list_resources(self) -> ResourceListing:
        """Of all kinds: whatever is left of an attempt keeps its name listed."""
        client = _started(self._cluster).client
        selector = selector_of(
            {
                layout.MANAGED_BY: layout.RUNYARD,
                layout.POOL: self._config.pool,
                layout.INSTALLATION: self._config.installation,
            }
        )
        secrets, jobs, pods = await asyncio.gather(
            client.list(SECRETS, labels=selector),
            client.list(JOBS, labels=selector, names_only=True),
            client.list(PODS, labels=selector),
        )
        found: dict[str, float] = {}
        for one in (*secrets.items, *jobs.items):
            metadata = one["metadata"]
            made_at = time_of(metadata["creationTimestamp"])
            found[metadata["name"]] = min(made_at, found.get(metadata["name"], math.inf))
        running: set[str] = set()
        for pod in pods.items:
            name = job_of(pod)
            found.setdefault(name, time_of(pod["metadata"]["creationTimestamp"]))
            if not has_ended(pod):
                running.add(name)
        resources = tuple(
            Resource(name=name, created_at=made_at, is_running=name in running)
            for name, made_at in found.items()
            if AttemptKey.from_resource_name(name) is not None
        )
        return ResourceListing(resources=resources, is_complete=True)

    async def destroy_resource(self, name: str) -> None:
        if AttemptKey.from_resource_name(name) is not None:
            await self._synced()
            await _started(self._cluster).places.destroy(name)

    async def check(self) -> Sequence[Finding]:
        return await run_checks(self, _started(self._cluster), _started(self._facts))

    # -- inside ---------------------------------------------------------------------------------------------------
    def _pool_settings(self) -> PoolSettings:
        capabilities, shape = self.capabilities, self.shape
        return PoolSettings(
            name=self._config.pool,
            provider="kubernetes",
            slots=shape.slots,
            budget=shape.budget,
            isolation=capabilities.isolation,
            labels=capabilities.labels,
            has_images=True,
        )

    def _need_current(self) -> None:
        for watch in self._watches:
            if watch.broken_for_s > BROKEN_S or not watch.has_synced:
                why = watch.trouble
                raise Unreachable(why.message if why else "Kubernetes: the cluster does not answer")

    async def _synced(self) -> None:
        """What the watches know is a beginning. Raises Unreachable, or what the cluster refuses them."""
        for watch in self._watches:
            try:
                async with asyncio.timeout(START_S):
                    await watch.synced()
            except TimeoutError:
                raise watch.trouble or Unreachable("Kubernetes: the cluster does not answer") from None


def secrets_problem(attempt: AttemptRequest) -> str:
    """Which of the attempt's secrets no pod can be given, by name; empty where all can."""
    for secret in attempt.secrets:
        if secret.env is None:
            return f"has no place yet for the secret {secret.name} as a file; let the job have it as env"
        try:
            secret.value.decode()
        except UnicodeDecodeError:
            return f"cannot give the secret {secret.name} as a variable: it is no UTF-8 text"
    return ""


def selector_of(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _started(value: T | None) -> T:
    assert value is not None, "start() comes first"
    return value
