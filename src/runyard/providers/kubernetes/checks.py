"""What a pool's check proves of its cluster: rights, quotas, runtime class, nodes, and one real job, each with its
cure."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterable, Mapping, Sequence
from pathlib import Path

from runyard.model.attempt import UID_LENGTH, AttemptKey
from runyard.model.errors import Invalid, ProviderError, RunyardError, Unreachable
from runyard.model.finding import Finding
from runyard.model.job import JobSpec, Limits, Step
from runyard.model.outcome import Outcome, OutcomeKind
from runyard.model.requirements import Requirements
from runyard.providers.kubernetes.client import NODES, QUOTAS, RUNTIME_CLASSES, KubernetesClient
from runyard.providers.kubernetes.cluster_facts import read_features
from runyard.providers.kubernetes.following import Cluster
from runyard.providers.kubernetes.manifest import PoolFacts, job_manifest
from runyard.providers.kubernetes.options import KubernetesOptions
from runyard.providers.kubernetes.quotas import quota_room
from runyard.providers.kubernetes.rights import RIGHTS, Right
from runyard.providers.port import AttemptRequest, LogSink, Provider, Records

JOB_S = 20.0
"""Dispatch takes a call for unreachable after 30 s."""

SAYS, WRITES = "the log comes through", "the artifact came through"
_SMALL = Requirements(cpu_millis=100, memory_bytes=64 << 20)


async def run_checks(provider: Provider, cluster: Cluster, facts: PoolFacts) -> Sequence[Finding]:
    """The job comes last, and only where the rights for it are there."""
    client, options = cluster.client, cluster.options
    try:
        findings = await _check_rights(client)
    except ProviderError as error:
        return [
            _wrong("cluster", error.message, error.cure or "see that the cluster's API server can be reached")
        ]
    findings += [
        await _check_quotas(client, options),
        *await _check_runtime_class(client, options),
        await _check_nodes(client, options),
        await _check_admission(client, options, facts),
    ]
    if all(finding.ok for finding in findings):
        findings.append(await _check_job(provider))
    return findings


async def _check_rights(client: KubernetesClient) -> list[Finding]:
    answers = await asyncio.gather(*(client.may(one.verb, one.kind, one.subresource) for one in RIGHTS))
    missing = [right for right, may in zip(RIGHTS, answers, strict=True) if not may]
    needed = [right for right in missing if not right.is_optional]
    reached = Finding(
        name="cluster", ok=True, message=f"{client.server} answers, namespace {client.namespace}"
    )
    if needed:
        words = "; ".join(f"{right.words} ({right.why})" for right in needed)
        cure = f"grant them to our account in namespace {client.namespace}: {_rules(needed)}"
        return [reached, _wrong("rights", f"missing: {words}", cure)]
    left_out = ", ".join(right.words for right in missing)
    message = f"all {len(RIGHTS) - len(missing)} rights are there"
    return [
        reached,
        Finding(name="rights", ok=True, message=message + (f"; without: {left_out}" if left_out else "")),
    ]


def _rules(rights: Sequence[Right]) -> str:
    """As rules of a Role, one for each resource."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for right in rights:
        resource = f"{right.kind.plural}/{right.subresource}" if right.subresource else right.kind.plural
        verbs.setdefault((right.kind.group, resource), []).append(right.verb)
    return "; ".join(
        f'{{apiGroups: ["{group}"], resources: [{resource}], verbs: [{", ".join(words)}]}}'
        for (group, resource), words in verbs.items()
    )


async def _check_quotas(client: KubernetesClient, options: KubernetesOptions) -> Finding:
    try:
        quotas = (await client.list(QUOTAS)).items
    except ProviderError as error:
        return Finding(name="quota", ok=True, message=f"not looked at: {error.message}")
    room = quota_room(quotas, _SMALL, priority_class=options.priority_class)
    if room.room == 0:
        return _wrong("quota", room.words, "raise the quota, or wait for what runs there to end")
    left = "no limit" if room.room is None else f"room for {room.room} small jobs"
    return Finding(name="quota", ok=True, message=f"{len(quotas)} quotas in the namespace: {left}")


async def _check_runtime_class(client: KubernetesClient, options: KubernetesOptions) -> list[Finding]:
    name = options.runtime_class
    if name is None:
        return []
    try:
        found = await client.read(RUNTIME_CLASSES, name)
    except ProviderError as error:
        return [Finding(name="runtime class", ok=True, message=f"{name} was not looked at: {error.message}")]
    if found is None:
        cure = "install it, or correct runtime_class; `kubectl get runtimeclasses` lists what there is"
        return [_wrong("runtime class", f"the cluster has no RuntimeClass {name!r}", cure)]
    return [Finding(name="runtime class", ok=True, message=f"{name}, handler {found.get('handler')}")]


async def _check_nodes(client: KubernetesClient, options: KubernetesOptions) -> Finding:
    selector = ",".join(f"{key}={value}" for key, value in options.node_selector.items())
    try:
        nodes = (await client.list(NODES, labels=selector, names_only=True)).items
    except ProviderError as error:
        return Finding(name="nodes", ok=True, message=f"not looked at, so set labels.arch: {error.message}")
    if not nodes:
        return _wrong("nodes", f"no node has the labels {selector or '(any)'}", "correct node_selector")
    arches = sorted({str((one["metadata"].get("labels") or {}).get("kubernetes.io/arch")) for one in nodes})
    return Finding(name="nodes", ok=True, message=f"{len(nodes)} of arch {', '.join(arches)}")


async def _check_admission(client: KubernetesClient, options: KubernetesOptions, facts: PoolFacts) -> Finding:
    """What the server would say to one of our Jobs, without making it: a policy that refuses it shows here."""
    from runyard.providers.kubernetes.client import JOBS

    try:
        job = job_manifest(_request(), options, await read_features(client), facts)
        answer = await client.try_create(JOBS, job)
    except ProviderError as error:
        return _wrong("admission", error.message, error.cure or "see that the API server can be reached")
    if answer.refusal is not None:
        return _wrong(
            "admission", answer.refusal.message, "correct what it names in the pool's options or policies"
        )
    if answer.warnings:
        words = "; ".join(answer.warnings)
        return _wrong(
            "admission", f"the server warns: {words}", "correct the pool's pod_template, or the policy"
        )
    return Finding(name="admission", ok=True, message="the server takes our Jobs without a word")


async def _check_job(provider: Provider) -> Finding:
    request, context = _request(), _Kept()
    began = time.monotonic()
    try:
        async with asyncio.timeout(JOB_S):
            outcome = await provider.run_job(request, context)
        return _judge_job(outcome, context, time.monotonic() - began)
    except TimeoutError:
        words = context.progress or "it did not say why"
        return _wrong("job", f"a small job did not end within {JOB_S:g} s: {words}", "see what it waits for")
    except RunyardError as error:
        return _wrong(
            "job", f"a small job could not be run: {error.message}", error.cure or "see the message"
        )
    finally:
        await _clear(provider, request.key)


def _judge_job(outcome: Outcome, context: _Kept, took_s: float) -> Finding:
    if outcome.kind is not OutcomeKind.SUCCEEDED:
        words = outcome.reason.message if outcome.reason else outcome.kind.value
        return _wrong("job", f"a small job {outcome.kind.value}: {words}", "see what it names")
    if SAYS not in context.said:
        cure = "see that the API server reaches the kubelets (pods/log)"
        return _wrong("job", f"a small job ran, and its log came as {context.said[:200]!r}", cure)
    if context.artifacts.get("artifact") != WRITES.encode():
        cure = "see that websockets reach the API server (pods/exec)"
        return _wrong("job", "a small job ran, and its artifact did not come", cure)
    return Finding(
        name="job", ok=True, message=f"a small job ran in {took_s:.1f} s; its log and artifact came through"
    )


async def _clear(provider: Provider, key: AttemptKey) -> None:
    try:
        await provider.destroy_resource(key.resource_name)
    except ProviderError:
        return  # it is ours by its labels: the sweep sees it


def _request() -> AttemptRequest:
    script = f"echo '{SAYS}'; printf '{WRITES}' > artifact"
    step = Step(name="check", command=("/bin/sh", "-c", script))
    return AttemptRequest(
        key=AttemptKey(secrets.token_hex(UID_LENGTH // 2), 1),
        job_id="check",
        spec=JobSpec(
            steps=(step,),
            requirements=_SMALL,
            limits=Limits(start_s=JOB_S, run_s=JOB_S),
            artifacts=("artifact",),
        ),
        slot=0,
        epoch=0,
    )


class _Log:
    def __init__(self) -> None:
        self.streams: dict[tuple[str, str], bytes] = {}

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        kept = self.streams.get((step, stream), b"")
        self.streams[step, stream] = kept[:offset].ljust(offset, b"\0") + data

    async def size(self, step: str, stream: str) -> int:
        return len(self.streams.get((step, stream), b""))


class _Kept:
    """A RunContext that keeps what a small job tells, in memory."""

    log_bytes_max = 1 << 16

    def __init__(self) -> None:
        self._log = _Log()
        self.progress: str | None = None
        self.artifacts: dict[str, bytes] = {}

    @property
    def log(self) -> LogSink:
        return self._log

    @property
    def said(self) -> str:
        return b"".join(self._log.streams.values()).decode(errors="replace")

    def may_create(self, within_s: float) -> bool:
        return True

    @property
    def log_directory(self) -> Path:
        raise Unreachable("a check has no folder for logs")

    @property
    def artifact_directory(self) -> Path:
        raise Unreachable("a check has no folder for artifacts")

    @property
    def records(self) -> Records:
        raise Unreachable("a check has no machines")

    async def record_phase(self, name: str, at: float) -> None:
        return

    async def record_outputs(self, outputs: Mapping[str, str]) -> None:
        return

    async def record_placement(self, facts: Mapping[str, str]) -> None:
        return

    async def record_cache_use(self, cache: str, result: str, total: int) -> None:
        return

    async def record_progress(
        self,
        text: str | None,
        *,
        fraction: float | None = None,
        done_bytes: int | None = None,
        total_bytes: int | None = None,
    ) -> None:
        self.progress = text

    async def store_artifact(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        content = b""
        async for chunk in chunks:
            content += chunk
            if len(content) > self.log_bytes_max:
                raise Invalid("the artifact of a check is longer than what the check wrote", field="path")
        self.artifacts[path] = content


def _wrong(name: str, message: str, cure: str) -> Finding:
    return Finding(name=name, ok=False, message=message, cure=cure)
