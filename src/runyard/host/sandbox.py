"""From what a sandbox shall be to bubblewrap's arguments: a pure function.

The root is an allow-list. All options go through `--args`, a descriptor: the environment of a job is then in no
process list, and never in the environment of bubblewrap itself, which runs outside (LD_PRELOAD would be obeyed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runyard.model.secret import FILES_DIRECTORY

INNER_ID = 1000
USER_NAME = "runyard"
HOSTNAME = "runyard"
WORKSPACE, TMP, HOME, OUTPUTS = "/workspace", "/tmp", "/tmp/home", "/outputs"
SECRETS = FILES_DIRECTORY
MOUNT_POINTS = ("/proc", "/dev", WORKSPACE, TMP, OUTPUTS)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoot:
    """A fresh tmpfs with read-only binds (source, target) and links (text, path)."""

    binds: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryRoot:
    """A folder as the root. Its mount points must have been prepared (mount_points.py) before every start."""

    path: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRoot:
    """An image's layers, the lowest first, under a layer of the attempt's own, stacked by bubblewrap (0.11). The mount
    points must have been prepared in `upper`, where they cover whatever lies beneath."""

    layers: tuple[str, ...]
    upper: str
    work: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """`inner_ids` are the user and group inside. `capabilities` are those over the sandbox's own ids.
    `device_directory` holds ready device nodes; None lets bubblewrap make them, which is dearer. Sources are paths
    on the host, None leaves the root's own folder; `files` are binds (source, target) of single files, `folders`
    read-only ones of directories;
    `secret_files` come out of descriptors (path beneath SECRETS, number) onto a memory file system of the program's."""

    root: HostRoot | DirectoryRoot | OverlayRoot
    workspace: str | None
    tmp: str | None
    outputs: str | None
    directory: str = WORKSPACE
    env: Mapping[str, str] = field(default_factory=dict)
    device_directory: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    folders: tuple[tuple[str, str], ...] = ()
    secret_files: tuple[tuple[str, int], ...] = ()
    shm_bytes: int | None = None
    has_host_network: bool = False
    inner_ids: tuple[int, int] = (INNER_ID, INNER_ID)
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """Inherited descriptors by number; None is not used. `user_namespace` is one to enter instead of a new one, with
    whatever ids it has."""

    user_namespace: int | None = None

    seccomp: int | None = None
    status: int | None = None
    block: int | None = None


def options(sandbox: Sandbox, descriptors: Descriptors) -> list[str]:
    """bubblewrap's options, in order; the command is not among them."""
    if descriptors.user_namespace is not None:
        namespace = str(descriptors.user_namespace)
        arguments = ["--userns", namespace, "--sync-fd", namespace]  # the latter keeps it from the command
    else:
        user_id, group_id = sandbox.inner_ids
        arguments = ["--unshare-user", "--uid", str(user_id), "--gid", str(group_id)]
    arguments += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if not sandbox.has_host_network:
        arguments.append("--unshare-net")
    arguments += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", HOSTNAME]
    for capability in sandbox.capabilities:
        arguments += ["--cap-add", capability]
    arguments += _root(sandbox.root)
    arguments += _devices(sandbox)
    arguments += ["--proc", "/proc"]
    for folder, target in ((sandbox.tmp, TMP), (sandbox.workspace, WORKSPACE), (sandbox.outputs, OUTPUTS)):
        arguments += ["--bind", folder, target] if folder is not None else []
    for source, target in (*sandbox.files, *sandbox.folders):
        arguments += ["--ro-bind", source, target]
    arguments += _secrets(sandbox)
    if isinstance(sandbox.root, HostRoot):
        arguments += ["--remount-ro", "/"]
    arguments += ["--chdir", sandbox.directory, "--clearenv"]
    for name, value in sandbox.env.items():
        arguments += ["--setenv", name, value]
    for option, number in (
        ("--seccomp", descriptors.seccomp),
        ("--json-status-fd", descriptors.status),
        ("--block-fd", descriptors.block),
    ):
        if number is not None:
            arguments += [option, str(number)]
    return arguments


def _root(root: HostRoot | DirectoryRoot | OverlayRoot) -> list[str]:
    if isinstance(root, OverlayRoot):
        sources = [argument for layer in root.layers for argument in ("--overlay-src", layer)]
        return [*sources, "--overlay", root.upper, root.work, "/"]
    if isinstance(root, DirectoryRoot):
        return ["--ro-bind" if root.read_only else "--bind", root.path, "/"]
    arguments: list[str] = []
    for source, target in root.binds:
        arguments += ["--ro-bind", source, target]
    for text, path in root.links:
        arguments += ["--symlink", text, path]
    return arguments


def _secrets(sandbox: Sandbox) -> list[str]:
    """Files that only the program's own user reads, on a tmpfs that ends with its sandbox and takes nothing more."""
    if not sandbox.secret_files:
        return []
    arguments = ["--perms", "0755", "--tmpfs", SECRETS]
    for path, number in sandbox.secret_files:
        arguments += ["--perms", "0400", "--file", str(number), f"{SECRETS}/{path}"]
    return [*arguments, "--remount-ro", SECRETS]


def _devices(sandbox: Sandbox) -> list[str]:
    shared = ["--perms", "1777"]  # of several users, as each has it
    shared += [] if sandbox.shm_bytes is None else ["--size", str(sandbox.shm_bytes)]
    if sandbox.device_directory is None:
        return ["--dev", "/dev", *shared, "--tmpfs", "/dev/shm"]
    return ["--dev-bind", sandbox.device_directory, "/dev", *shared, "--tmpfs", "/dev/shm"]
