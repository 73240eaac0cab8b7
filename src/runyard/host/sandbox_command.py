"""The command that starts a program of an attempt: sandboxed, or bare where the operator and the job allow it."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runyard.host import attempt_directory as folders
from runyard.host.attempt_directory import AttemptDirectory
from runyard.host.cgroups import AttemptCgroup
from runyard.host.images.ids import ROOT_CAPABILITIES
from runyard.host.images.roots import GENERATED, ImageRoots
from runyard.host.mount_points import HostileRoot, prepare
from runyard.host.plan import NETWORK_OPEN, Plan, PlanImage, PlanStep
from runyard.host.process import OPEN_FILES_MAX, Identity
from runyard.host.sandbox import (
    HOME,
    INNER_ID,
    MOUNT_POINTS,
    OUTPUTS,
    SECRETS,
    TMP,
    WORKSPACE,
    Descriptors,
    DirectoryRoot,
    HostRoot,
    OverlayRoot,
    Sandbox,
    options,
)
from runyard.host.stage import Stage
from runyard.host.step import Command

SHM_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedNetwork:
    """A network namespace that programs enter instead of having one each. `join` is for the child that becomes one;
    `files` (source, target) are what the network shows in /etc."""

    join: Callable[[], None]
    files: tuple[tuple[str, str], ...] = ()

    def entered_by(self, identity: Identity) -> Identity:
        before = identity.join

        def join() -> None:
            if before is not None:
                before()
            self.join()

        return replace(identity, join=join)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an attempt's programs run: its plan and directory, its groups, the stage if there is one, the filter; the
    network that its steps share, None where each has its own."""

    plan: Plan
    directory: AttemptDirectory
    cgroup: AttemptCgroup | None
    stage: Stage | None
    seccomp_filter: bytes | None
    roots: ImageRoots
    network: SharedNetwork | None = None

    def identity(self, image: PlanImage | None = None) -> Identity:
        """Whom a program runs as on the host: the attempt's id, or an image's user in the slot's range."""
        base = self.plan.id_base
        ids = Identity(user_id=self.plan.user_id)
        if image is not None and base is not None:
            ids = Identity(
                user_id=base + image.user_id,
                group_id=base + image.group_id,
                groups=tuple(base + group for group in image.groups),
            )
        return replace(
            ids,
            join=None if self.cgroup is None else self.cgroup.join,
            rlimits=_rlimits(self.plan, has_cgroup=self.cgroup is not None),
        )

    def source(self, folder: str) -> str:
        return f"{self.stage.path}/{folder}" if self.stage else self.directory.file(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a program's sandbox has beyond the others': files and folders to read, secret files (path beneath SECRETS,
    bytes), the network of whoever starts it (the host's, or the `network` that it enters first)."""

    files: tuple[tuple[str, str], ...] = ()
    folders: tuple[tuple[str, str], ...] = ()
    secret_files: tuple[tuple[str, bytes], ...] = ()
    has_host_network: bool = False
    network: SharedNetwork | None = None
    extra_env: Mapping[str, str] = field(default_factory=dict)


def step_command(
    place: Place, step: PlanStep, *, secret_files: tuple[tuple[str, bytes], ...] = ()
) -> Command:
    """Without a sandbox there is no place for `secret_files`: who asks for them sees to it. Raises HostileRoot where
    the root was prepared to lead a mount elsewhere."""
    if place.plan.isolation == "none":
        return bare(place, step)
    if place.network is not None:
        shared = Extras(
            files=place.network.files,
            secret_files=secret_files,
            has_host_network=True,
            network=place.network,
        )
        return sandboxed(place, step, extras=shared)
    block_read, block_write = os.pipe2(os.O_CLOEXEC) if place.plan.network == NETWORK_OPEN else (-1, -1)
    files: tuple[tuple[str, str], ...] = ()
    if block_read >= 0:
        resolver = place.stage.resolv_conf if place.stage else place.plan.resolv_conf
        files = ((resolver, "/etc/resolv.conf"),)
    extras = Extras(files=files, secret_files=secret_files)
    return sandboxed(place, step, extras=extras, block=(block_read, block_write))


def sandboxed(
    place: Place, step: PlanStep, *, extras: Extras | None = None, block: tuple[int, int] = (-1, -1)
) -> Command:
    """bubblewrap, its options in a memory file; `block` is a pipe whose read end holds the command back."""
    extras = extras or Extras()
    sandbox = _sandbox(place, step, extras)
    identity = place.identity(None if step.image is None else place.plan.images[step.image])
    if extras.network is not None:
        identity = extras.network.entered_by(identity)
    if step.image is None:
        return bubblewrap(place, sandbox, step.command, identity=identity, block=block)
    return bubblewrap(
        place,
        sandbox,
        step.command,
        identity=identity,
        block=block,
        user_namespace=place.roots.user_namespace(step.image) if place.stage else None,
    )


def bubblewrap(
    place: Place,
    sandbox: Sandbox,
    command: Sequence[str],
    *,
    identity: Identity,
    block: tuple[int, int] = (-1, -1),
    user_namespace: int | None = None,
) -> Command:
    """The start of `command` in that sandbox, as `identity`, in a `user_namespace` of its own where there is none."""
    status_read, status_write = os.pipe2(os.O_CLOEXEC)
    inherit = [status_write, *(number for _, number in sandbox.secret_files)]
    namespace = None
    if user_namespace is not None:
        namespace = os.dup(user_namespace)
        inherit.append(namespace)
    seccomp = None
    if place.seccomp_filter is not None:
        seccomp = _memory_file("seccomp", place.seccomp_filter)
        inherit.append(seccomp)
    if block[0] >= 0:
        inherit.append(block[0])
    descriptors = Descriptors(
        seccomp=seccomp,
        status=status_write,
        block=block[0] if block[0] >= 0 else None,
        user_namespace=namespace,
    )
    arguments = _joined(options(sandbox, descriptors))
    arguments_fd = _memory_file("arguments", arguments)
    return Command(
        argv=[place.plan.bwrap, "--args", str(arguments_fd), "--", *command],
        env={},
        identity=identity,
        inherit=[arguments_fd, *inherit],
        status_read=status_read,
        block_write=block[1],
    )


def _joined(arguments: Sequence[str]) -> bytes:
    """As `--args` takes them. A NUL within one would make bubblewrap options of what follows it, whoever let it in."""
    if any("\0" in argument for argument in arguments):
        raise HostileRoot("a path or a variable holds a NUL character; nothing was started")
    return b"".join(os.fsencode(argument) + b"\0" for argument in arguments)


def _sandbox(place: Place, step: PlanStep, extras: Extras) -> Sandbox:
    plan, stage = place.plan, place.stage
    files, inner_ids = extras.files, (INNER_ID, INNER_ID)
    mount_points = (*MOUNT_POINTS, SECRETS) if extras.secret_files else MOUNT_POINTS
    capabilities: tuple[str, ...] = ()
    root: HostRoot | DirectoryRoot | OverlayRoot
    if step.image is None:
        root = _prepared_root(place, files, mount_points)
    else:
        image = plan.images[step.image]
        files = with_generated(place, files)
        root = place.roots.root(step.image, [target for _, target in files], mount_points)
        inner_ids = image.user_id, image.group_id
        if image.user_id == 0 and stage is not None:
            capabilities = ROOT_CAPABILITIES
        _hand_over(place, image)
    return Sandbox(
        root=root,
        workspace=place.source(folders.WORKSPACE),
        tmp=place.source(folders.TMP),
        outputs=place.source(folders.OUTPUTS),
        directory=step.directory,
        env={**step.env, **extras.extra_env},
        device_directory=stage.devices if stage else None,
        files=files,
        folders=extras.folders,
        secret_files=tuple((path, _memory_file("secret", value)) for path, value in extras.secret_files),
        shm_bytes=min(SHM_BYTES, plan.limits.memory_bytes or SHM_BYTES),
        has_host_network=extras.has_host_network,
        inner_ids=inner_ids,
        capabilities=capabilities,
    )


def with_generated(place: Place, files: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Our /etc/hosts and its like, where a step's own files are not already of that name."""
    taken = {target for _, target in files}
    if place.stage is not None:
        generated = [(f"{place.stage.root}{path}", path) for path in GENERATED]
    else:
        generated = [(source, target) for source, target in place.plan.host_tree.binds if target in GENERATED]
    return (*files, *((source, target) for source, target in generated if target not in taken))


def _hand_over(place: Place, image: PlanImage) -> None:
    """The folders of the attempt are its next step's user's own; what other users made in them stays theirs."""
    if place.plan.id_base is None:
        return
    owner = place.identity(image)
    assert owner.user_id is not None
    assert owner.group_id is not None
    for folder in (folders.WORKSPACE, f"{folders.TMP}/home", folders.OUTPUTS):
        with contextlib.suppress(FileNotFoundError):  # /tmp/home is the job's to remove
            os.chown(place.source(folder), owner.user_id, owner.group_id, follow_symlinks=False)


def _prepared_root(
    place: Place, files: Sequence[tuple[str, str]], mount_points: Sequence[str]
) -> HostRoot | DirectoryRoot:
    """A foreign root is looked over again before every start: an earlier step may have changed it."""
    plan, stage = place.plan, place.stage
    if plan.root_directory is not None:
        root = stage.image if stage else plan.root_directory
        prepare(root, directories=mount_points, files=[target for _, target in files])
        return DirectoryRoot(path=root, read_only=stage is None)
    if stage is not None:
        return DirectoryRoot(path=stage.root)
    return HostRoot(binds=plan.host_tree.binds, links=plan.host_tree.links)


def bare(place: Place, step: PlanStep) -> Command:
    """No sandbox: the real folders stand for those that a step knows by name."""
    real = {
        HOME: place.source(folders.TMP) + "/home",
        TMP: place.source(folders.TMP),
        WORKSPACE: place.source(folders.WORKSPACE),
        OUTPUTS: place.source(folders.OUTPUTS),
    }
    env = {name: real.get(value, value) for name, value in step.env.items()}
    directory = step.directory
    if directory == WORKSPACE or directory.startswith(WORKSPACE + "/"):
        directory = real[WORKSPACE] + directory[len(WORKSPACE) :]
    return Command(
        argv=step.command,
        env=env,
        identity=place.identity(),
        directory=directory,
        is_sandboxed=False,
    )


def _rlimits(plan: Plan, *, has_cgroup: bool) -> dict[int, int]:
    limits = {resource.RLIMIT_CORE: 0}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits[resource.RLIMIT_NOFILE] = OPEN_FILES_MAX if hard < 0 else min(OPEN_FILES_MAX, hard)
    if plan.disk.bytes_max is not None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        limits[resource.RLIMIT_FSIZE] = plan.disk.bytes_max if hard < 0 else min(plan.disk.bytes_max, hard)
    if not has_cgroup:
        if plan.limits.memory_bytes is not None:
            limits[resource.RLIMIT_DATA] = plan.limits.memory_bytes
        if plan.limits.pids_max is not None:
            limits[resource.RLIMIT_NPROC] = plan.limits.pids_max
    return limits


def _memory_file(name: str, content: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
