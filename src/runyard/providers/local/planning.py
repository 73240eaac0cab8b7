"""From an attempt that is asked for to the plan that its shim carries out. Pure."""

from __future__ import annotations

import itertools
import posixpath
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runyard.host import plan as host_plan
from runyard.host.attempt_directory import Began
from runyard.host.cgroups import CgroupTree, Limits
from runyard.host.disk_watch import DiskLimits
from runyard.host.images.ids import id_base
from runyard.host.images.store import ReadyImage
from runyard.host.linux import boot_id, boottime
from runyard.host.plan import (
    FetchRules,
    HostTree,
    Plan,
    PlanCache,
    PlanCaches,
    PlanCredential,
    PlanEgress,
    PlanFile,
    PlanGit,
    PlanImage,
    PlanService,
    PlanStep,
)
from runyard.host.sandbox import HOME, INNER_ID, OUTPUTS, PATH, WORKSPACE
from runyard.model.job import JobSpec, NamedCache, Service, Step
from runyard.model.requirements import Isolation
from runyard.providers.local.git_credentials import GitCredential
from runyard.providers.local.options import LocalOptions
from runyard.providers.port import AttemptRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the started provider knows of its host. `has_user_ids`: an id per slot can be given. `repositories` is the
    folder of the pool's mirrors."""

    isolation: Isolation
    has_user_ids: bool
    bwrap: str
    slirp: str
    resolv_conf: str
    cgroups: CgroupTree
    host_tree: HostTree
    cache_directory: str
    repositories: str = ""
    nft: str = "nft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where the attempt's log and artifacts go."""

    log_directory: Path
    log_bytes_max: int
    artifact_directory: Path


def make_plan(
    request: AttemptRequest,
    facts: HostFacts,
    options: LocalOptions,
    destination: Destination,
    *,
    images: Mapping[str, ReadyImage] | None = None,
    began: Began | None = None,
) -> Plan:
    """`images` are the job's, by name; `began`: since when the limit of the start counts, None is now."""
    spec, requirements = request.spec, request.spec.requirements
    images = images or {}
    for_steps = {name: image for name, image in images.items() if name in map(spec.image_of, spec.steps)}
    base = id_base(options.uid_base, request.slot)
    return Plan(
        name=request.key.resource_name,
        boot_id=boot_id(),
        created_at=time.time() if began is None else began.at,
        created_boottime=boottime() if began is None else began.boottime,
        steps=tuple(_step(request, step, for_steps) for step in spec.steps),
        log_directory=str(destination.log_directory),
        artifact_directory=str(destination.artifact_directory),
        log_bytes_max=destination.log_bytes_max,
        isolation=host_plan.NONE if facts.isolation is Isolation.NONE else host_plan.CONTAINER,
        user_id=_user_id(base, spec, images) if facts.has_user_ids else None,
        images=(
            *(_image(image) for image in for_steps.values()),
            *(_image(images[service.image]) for service in spec.services),  # each has a root of its own
            *(_image(images[service.image]) for service in spec.services if service.ready_command),
        ),
        id_base=base if facts.has_user_ids else None,
        bwrap=facts.bwrap,
        host_tree=HostTree() if facts.has_user_ids else facts.host_tree,
        network=requirements.network,
        slirp=facts.slirp,
        resolv_conf=facts.resolv_conf,
        allow_private_addresses=options.allow_private_addresses,
        egress=PlanEgress(
            allow=spec.network_allow,
            opened=options.egress_networks,
            nameservers=options.nameservers,
            nft=facts.nft,
        ),
        cgroups=facts.cgroups,
        limits=Limits(
            memory_bytes=requirements.memory_bytes,
            pids_max=options.pids_max,
            cpu_millis=requirements.cpu_millis,
        ),
        disk=DiskLimits(
            bytes_max=options.disk_bytes_max if requirements.disk_bytes is None else requirements.disk_bytes,
            files_max=options.files_max,
            reserve_bytes=options.disk_reserve_bytes,
        ),
        start_limit_s=spec.limits.start_s,
        run_limit_s=spec.limits.run_s,
        kill_grace_s=options.kill_grace_s,
        files=tuple(
            PlanFile(path=file.path, content_base64=file.content_base64, url=file.url, sha256=file.sha256)
            for file in spec.workspace.files
        ),
        git=_git(spec, facts, options),
        fetch=FetchRules(
            protocols=options.git_protocols,
            allow_private_addresses=options.allow_private_addresses,
            file_roots=options.git_file_roots,
            user_id=options.uid_base - 1 if facts.has_user_ids else None,
            ca_file=options.git_ca_file,
        ),
        caches=_caches(spec, facts, options),
        services=_services(spec, images, first_number=len(for_steps)),
        artifacts=spec.artifacts,
        outputs=dict(spec.outputs),
        has_secrets=spec.has_secrets,
    )


def _step(request: AttemptRequest, step: Step, images: Mapping[str, ReadyImage]) -> PlanStep:
    spec = request.spec
    name = spec.image_of(step)
    image = None if name is None else images[name]
    directory = step.dir if step.dir is not None else spec.dir
    return PlanStep(
        name=step.name,
        command=step.command,
        env=step_environment(request, step, {} if image is None else image.env),
        directory=posixpath.normpath(posixpath.join(WORKSPACE, directory or "")),
        timeout_s=step.timeout_s,
        condition=step.condition.value,
        image=None if name is None else list(images).index(name),
    )


def _services(
    spec: JobSpec, images: Mapping[str, ReadyImage], *, first_number: int
) -> tuple[PlanService, ...]:
    """Their roots are numbered on from those of the steps, then those of what asks whether they are ready."""
    planned = []
    asking = itertools.count(first_number + len(spec.services))
    for number, service in enumerate(spec.services, start=first_number):
        ready_image = next(asking) if service.ready_command else -1
        planned.append(_service(service, images[service.image], number, ready_image))
    return tuple(planned)


def _service(service: Service, image: ReadyImage, number: int, ready_image: int) -> PlanService:
    process = image.process
    ports = process.ports if service.ready_port is None else (service.ready_port,)
    home = "/root" if image.user.user_id == 0 else "/"
    return PlanService(
        name=service.name,
        image=number,
        command=(*process.entrypoint, *(service.command or process.cmd)),
        env={"PATH": PATH, "HOME": home, **image.env, **service.env},
        directory=process.directory,
        ready_ports=() if service.ready_command else ports,
        ready_command=service.ready_command,
        ready_image=ready_image,
        ready_timeout_s=service.ready_timeout_s,
        memory_bytes=service.memory_bytes,
        cpu_millis=service.cpu_millis,
    )


def _image(image: ReadyImage) -> PlanImage:
    user = image.user
    return PlanImage(
        layers=image.layers,
        user_id=user.user_id,
        group_id=user.group_id,
        groups=user.groups,
        layer_uses=image.layer_uses,
    )


def _user_id(id_base: int, spec: JobSpec, images: Mapping[str, ReadyImage]) -> int:
    """Whose the workspace is: the first step's user, as its image knows it."""
    name = spec.image_of(spec.steps[0]) if spec.steps else None
    return id_base + (INNER_ID if name is None else images[name].user.user_id)


def step_environment(request: AttemptRequest, step: Step, image_env: Mapping[str, str]) -> dict[str, str]:
    """Exactly what INTERFACE.md lists; nothing of the service's own."""
    return {
        "PATH": PATH,
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "CI": "true",
        **request.env,
        "RUNYARD_STEP": step.name,
        "RUNYARD_WORKSPACE": WORKSPACE,
        "RUNYARD_OUTPUTS": OUTPUTS,
        **image_env,
        **request.spec.env,
        **step.env,
    }


def _git(spec: JobSpec, facts: HostFacts, options: LocalOptions) -> PlanGit | None:
    source = spec.workspace.git
    if source is None:
        return None
    keeps = options.repository_bytes_max > 0
    return PlanGit(
        url=source.url,
        ref=source.ref,
        depth=source.depth,
        fetch_tags=source.fetch_tags,
        sparse=source.sparse,
        submodules=source.submodules,
        lfs=source.lfs,
        tenant=spec.tenant,
        store=facts.repositories if keeps else None,
        store_bytes_max=options.repository_bytes_max if keeps else None,
        credentials=tuple(_credential(each) for each in options.git_credentials if each.is_for(spec.tenant)),
    )


def _credential(option: GitCredential) -> PlanCredential:
    return PlanCredential(
        url=option.url,
        username=option.username,
        password_file=option.password_file,
        ssh_key_file=option.ssh_key_file,
        known_hosts_file=option.known_hosts_file,
    )


def _caches(spec: JobSpec, facts: HostFacts, options: LocalOptions) -> PlanCaches | None:
    if not spec.cache:
        return None
    return PlanCaches(
        directory=facts.cache_directory,
        tenant=spec.tenant,
        queue=spec.queue,
        bytes_max=options.cache_disk_bytes_max,
        entry_bytes_max=options.cache_entry_bytes_max,
        entries=tuple(_cache(cache) for cache in spec.cache),
    )


def _cache(cache: NamedCache) -> PlanCache:
    beneath = cache.path.removeprefix("~/")
    return PlanCache(
        key=cache.key,
        restore=cache.restore,
        root=WORKSPACE if beneath == cache.path else HOME,
        path=posixpath.normpath(beneath),
    )
