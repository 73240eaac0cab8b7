"""The `local` provider: attempts on this host, each in a sandbox of its own, without a daemon."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from runyard.host import findings, host_tree, journal
from runyard.host.attempt_directory import AttemptDirectory, Began
from runyard.host.egress import RESOLV_CONF
from runyard.host.findings import Level, Verdict
from runyard.host.images.probing import probe_images
from runyard.host.images.store import ReadyImage
from runyard.host.journal import Record
from runyard.host.probe import ProbeResults, probe
from runyard.host.runner import AttemptRunner
from runyard.host.sandbox_bench import SandboxBench, bench_plan
from runyard.host.zygote_client import Zygote
from runyard.model.attempt import UID_LENGTH, AttemptKey
from runyard.model.errors import IsolationUnavailable, RunyardError, Unreachable
from runyard.model.finding import Finding
from runyard.model.job import JobSpec
from runyard.model.outcome import Outcome, ReasonCode, refused
from runyard.model.pool import Availability, Demand, Supply
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.local.admission import HostSupply, admit, host_labels, measure_supply
from runyard.providers.local.images import AttemptImages, placement
from runyard.providers.local.options import LocalOptions, parse_options
from runyard.providers.local.planning import Destination, HostFacts, make_plan
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

START_S = 2.0
_STAGE = "/run/runyard/stage"
_BENCH_SLOT = 17_000  # its ids are clear of all slots, and below 2**31, where bubblewrap loses count
_NO_FILES = (
    "pool '{pool}' gives no isolation, so it has no place for a secret as a file; let the job have it as env"
)
_VITAL = ("bwrap", "user_namespaces", "mount_namespace", "seccomp")
_PHASES = {
    journal.PREPARING: "preparing",
    journal.WORKSPACE: "workspace",
    journal.CACHE: "cache",
    journal.SERVICES: "services",
    journal.COLLECTING: "collecting",
}

T = TypeVar("T")


class LocalProvider:
    """Owns `data_directory`: `attempts/` with a directory each, `images/`, `sandbox/` with the generated files of
    /etc, `caches/` with the named caches of its jobs."""

    def __init__(self, config: ProviderConfig) -> None:
        self._pool = config.pool
        self._slots_wanted = config.slots
        self._options = parse_options(config.pool, config.options)
        self._folder = Path(config.data_directory)
        self._attempts = self._folder / "attempts"
        self._results: ProbeResults | None = None
        self._verdict: Verdict | None = None
        self._facts: HostFacts | None = None
        self._supply: HostSupply | None = None
        self._zygote: Zygote | None = None
        self._runner: AttemptRunner | None = None
        self._images: AttemptImages | None = None
        self._no_images = "the provider was not started"

    @property
    def options(self) -> LocalOptions:
        return self._options

    @property
    def capabilities(self) -> Capabilities:
        verdict = _started(self._verdict)
        bare = self._options.isolation is Isolation.NONE
        return Capabilities(
            isolation=Isolation.NONE if bare else verdict.isolation,
            is_host_bound=True,
            has_network_open=bare or verdict.has_network_open,
            has_network_allow=not bare and verdict.has_network_allow,
            has_images=not self._no_images,
            has_services=not self._no_images and verdict.level is Level.ROOT,
            labels={**host_labels(), **self._options.labels},
            description=f"no isolation, as configured; {findings.DISK}"
            if bare
            else f"{verdict.description}; {_describe_images(self._no_images, verdict.level)}",
        )

    @property
    def shape(self) -> PoolShape:
        supply = _started(self._supply)
        return PoolShape(slots=self._slots_wanted or supply.cores, budget=supply.budget)

    async def start(self) -> None:
        results = await asyncio.to_thread(self._prepare)
        verdict = self._verdict = findings.judge(results)
        self._results = results
        bare = self._options.isolation is Isolation.NONE
        if verdict.isolation is Isolation.NONE and not bare:
            raise _unavailable(self._pool, results)
        has_stage = verdict.level is Level.ROOT
        stage = await asyncio.to_thread(_stage_path, self._folder) if has_stage else None
        self._facts = HostFacts(
            isolation=Isolation.NONE if bare else verdict.isolation,
            has_user_ids=results.is_root,
            bwrap=verdict.bwrap.path if verdict.bwrap else "bwrap",
            slirp=results.slirp or "slirp4netns",
            resolv_conf=str(self._folder / "sandbox" / "resolv.conf"),
            cgroups=results.cgroup_tree,
            nft=results.nft or "nft",
            repositories=str(self._folder / "repositories"),
            cache_directory=str(self._folder / "caches"),
            host_tree=await asyncio.to_thread(host_tree.host_tree, str(self._folder / "sandbox" / "etc")),
        )
        await self._start_images(verdict)
        self._supply = await asyncio.to_thread(measure_supply, self._options, self._folder)
        self._zygote = Zygote(stage=stage, cgroups=results.cgroup_tree)
        self._runner = AttemptRunner(self._zygote)
        await self._zygote.start()

    async def close(self) -> None:
        if self._zygote is not None:
            await self._zygote.close()
        if self._runner is not None:
            self._runner.close()
        if self._images is not None:
            await self._images.close()

    async def can_dequeue(self, requirements: Requirements) -> Availability:
        supply = _started(self._supply)
        free_bytes = await asyncio.to_thread(_free_bytes, self._folder)
        return admit(
            requirements,
            pool=self._pool,
            capabilities=self.capabilities,
            shape=self.shape,
            supply=supply,
            options=self._options,
            disk_free_bytes=free_bytes,
        )

    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        runner, facts = _started(self._runner), _started(self._facts)
        destination = Destination(
            log_directory=context.log_directory,
            log_bytes_max=context.log_bytes_max,
            artifact_directory=context.artifact_directory,
        )

        directory = self._directory(attempt.key)
        if facts.isolation is Isolation.NONE and any(secret.path is not None for secret in attempt.secrets):
            return refused(ReasonCode.REQUIREMENTS, _NO_FILES.format(pool=self._pool))
        images: Mapping[str, ReadyImage] = {}
        began: Began | None = None
        if not directory.exists and attempt.spec.images:
            began = directory.begin()
            obtained = await self._obtain_images(attempt, context, directory, began)
            if isinstance(obtained, Outcome):
                return obtained
            images = obtained
        if not directory.exists and not context.may_create(START_S):
            raise Unreachable(f"the lease of pool '{self._pool}' ends before a start would")

        async def on_record(record: Record) -> None:
            await _tell(attempt.spec, context, record)

        facts_told = asyncio.ensure_future(_record_placement(attempt, images, context))
        try:
            end = await runner.run(
                directory,
                lambda: make_plan(attempt, facts, self._options, destination, images=images, began=began),
                on_record,
                secrets=attempt.secrets,
            )
            await facts_told
        finally:
            facts_told.cancel()
        if end.outputs:
            await context.record_outputs(end.outputs)
        return end.outcome

    async def stop_job(self, key: AttemptKey, *, grace_s: float) -> None:
        await asyncio.to_thread(self._directory(key).request_stop, grace_s)
        if self._images is not None:
            self._images.stop(key.resource_name)

    async def handle_queue_size(self, demand: Demand, records: Records) -> Supply:
        slots = self.shape.slots
        return Supply(slots=slots, idle=max(0, slots - demand.starting - demand.running))

    async def check(self) -> Sequence[Finding]:
        results = await asyncio.to_thread(self._prepare)
        return [*findings.findings(results), self._check_images(), await self._check_start()]

    async def list_resources(self) -> ResourceListing:
        return await asyncio.to_thread(self._list_resources)

    async def destroy_resource(self, name: str) -> None:
        key = AttemptKey.from_resource_name(name)
        if key is None:
            return
        cgroups = _started(self._facts).cgroups
        try:
            await asyncio.to_thread(self._directory(key).destroy, cgroups)
            if self._images is not None:
                self._images.store.release(name)
        except Exception as error:  # the sweep asks again; a torn file of one attempt must not end it
            raise Unreachable(f"{name} could not be removed: {error}") from None

    def bench(self) -> SandboxBench:
        """What a start costs here (`runyard bench`). Close it after use."""
        facts, options = _started(self._facts), self._options
        request = _bench_request(Requirements(isolation=facts.isolation))
        nowhere = Destination(log_directory=Path(), log_bytes_max=1 << 20, artifact_directory=Path())
        template = make_plan(request, facts, options, nowhere)
        folder = self._folder / "bench"
        return SandboxBench(
            _started(self._runner), lambda name, path: bench_plan(template, name, path), folder
        )

    async def _start_images(self, verdict: Verdict) -> None:
        """The store of images, where the host can run any; else the reason why not."""
        folder = self._folder / "images"
        if self._options.isolation is Isolation.NONE:
            self._no_images = "images need a sandbox, and the pool is configured to give none"
        else:
            self._no_images = await asyncio.to_thread(
                probe_images,
                folder,
                bwrap=verdict.bwrap.path if verdict.bwrap else None,
                id_base=self._options.uid_base if verdict.level is Level.ROOT else None,
            )
        if not self._no_images:
            self._images = AttemptImages(folder, self._options)
            await self._images.start(self._attempts)

    async def _obtain_images(
        self, attempt: AttemptRequest, context: RunContext, directory: AttemptDirectory, began: Began
    ) -> Mapping[str, ReadyImage] | Outcome:
        if self._images is None:
            return refused(ReasonCode.REQUIREMENTS, f"pool '{self._pool}' has no images: {self._no_images}")
        return await self._images.obtain(attempt, context, directory, began)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> ProbeResults:
        """The folders, the generated files, and a look at the host."""
        for folder in (self._folder, self._attempts):
            folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        generated = self._folder / "sandbox"
        host_tree.write_generated(str(generated / "etc"))
        resolver = generated / "resolv.conf"
        resolver.write_text(RESOLV_CONF)
        resolver.chmod(0o644)
        return probe(self._options.uid_base if os.geteuid() == 0 else None)

    def _directory(self, key: AttemptKey) -> AttemptDirectory:
        return AttemptDirectory(self._attempts / key.resource_name)

    def _list_resources(self) -> ResourceListing:
        found = []
        with os.scandir(self._attempts) as entries:
            for entry in entries:
                if AttemptKey.from_resource_name(entry.name) is None:
                    continue
                directory = AttemptDirectory(Path(entry.path))
                try:
                    made_at = entry.stat(follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue  # destroyed while we looked
                found.append(Resource(name=entry.name, created_at=made_at, is_running=directory.is_alive()))
        return ResourceListing(resources=tuple(found), is_complete=True)

    def _check_images(self) -> Finding:
        verdict = _started(self._verdict)
        return Finding(
            name="images",
            ok=not self._no_images,
            message=_describe_images(self._no_images, verdict.level),
            cure="see docs/images.md, What the host must have" if self._no_images else "",
        )

    async def _check_start(self) -> Finding:
        began = time.perf_counter()
        bench = self.bench()
        try:
            await bench.run_attempt()
        except (RunyardError, RuntimeError, OSError) as error:
            return Finding(
                name="start",
                ok=False,
                message=f"a sandbox could not be started: {error}",
                cure="see the findings above",
            )
        finally:
            bench.close()
        took_ms = (time.perf_counter() - began) * 1000
        return Finding(name="start", ok=True, message=f"a sandbox ran `true` in {took_ms:.0f} ms")


def create_provider(config: ProviderConfig) -> LocalProvider:
    """The entry point `local`. Raises ConfigError for options that are wrong."""
    return LocalProvider(config)


def _started(value: T | None) -> T:
    assert value is not None, "start() comes first"
    return value


async def _record_placement(
    attempt: AttemptRequest, images: Mapping[str, ReadyImage], context: RunContext
) -> None:
    """Beside the start, which does not wait for it."""
    if images:
        await context.record_placement(placement(attempt, images))


async def _tell(spec: JobSpec, context: RunContext, record: Record) -> None:
    what, at = record["what"], float(record["at"])
    if what == journal.STEP_STARTED:
        await context.record_phase("running", at)
        await context.record_phase(f"step:{spec.steps[record['index']].name}", at)
    elif what == journal.PROGRESS:
        await context.record_progress(
            record["text"],
            fraction=record["fraction"],
            done_bytes=record["done_bytes"],
            total_bytes=record["total_bytes"],
        )
    elif what == journal.CACHE_USE:
        await context.record_cache_use(record["cache"], record["result"], record["total"])
    elif what in _PHASES:
        await context.record_phase(_PHASES[what], at)


def _unavailable(pool: str, results: ProbeResults) -> IsolationUnavailable:
    wrong = [finding for finding in findings.findings(results) if not finding.ok and finding.name in _VITAL]
    what = "; ".join(finding.message for finding in wrong)
    cures = "; ".join(dict.fromkeys(finding.cure for finding in wrong if finding.cure))
    return IsolationUnavailable(
        f"pool '{pool}': this host cannot isolate jobs: {what}",
        field=f"pools.{pool}",
        cure=f"{cures}; or set isolation = 'none' for the pool, for jobs that accept it",
    )


def _describe_images(no_images: str, level: Level) -> str:
    if no_images:
        return f"no images: {no_images}"
    if level is Level.ROOT:
        return "images with their own users (65536 ids for each slot)"
    return "images with one user id, so no user of an image but the one that its steps run as"


def _stage_path(folder: Path) -> str:
    """Only a mount point: what is mounted there is seen by the zygote and its shims alone."""
    try:
        os.makedirs(_STAGE, mode=0o755, exist_ok=True)
        return _STAGE
    except OSError:
        return str(folder / "stage")


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _bench_request(requirements: Requirements) -> AttemptRequest:
    return AttemptRequest(
        key=AttemptKey("bench".ljust(UID_LENGTH, "0"), 1),
        job_id="bench",
        spec=JobSpec(steps=(), requirements=requirements),
        slot=_BENCH_SLOT,
        epoch=0,
    )
