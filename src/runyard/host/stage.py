"""The stage: a mount namespace of our own in which a sandbox's root stands ready (root level only).

The zygote prepares it once: a small tmpfs with the host's allow-list bound read-only and real device nodes. Each
shim, forked from it, takes a private copy of the namespace and binds its attempt's folders onto it. So bubblewrap
binds one tree instead of thirty, the slot's id reaches the attempt's folders wherever the data folder lies, and no
mount of ours is ever seen, or left, on the host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat

from runyard.host import host_tree
from runyard.host.egress import RESOLV_CONF
from runyard.host.linux import (
    CLONE_NEWNS,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    MS_SLAVE,
    bind,
    bind_folder,
    mount,
    unmount,
    unshare,
)
from runyard.host.sandbox import MOUNT_POINTS, SECRETS

_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}
_JOB_FOLDERS = ("workspace", "tmp", "outputs", "image", "repository", "fetch", "scratch", "base", "network")


class Stage:
    """Paths on the stage. Made in the zygote; `enter` is for its children."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.root = f"{path}/root"
        self.devices = f"{path}/dev"
        self.workspace = f"{path}/workspace"
        self.tmp = f"{path}/tmp"
        self.outputs = f"{path}/outputs"
        self.image = f"{path}/image"
        self.repository = f"{path}/repository"
        self.resolv_conf = f"{path}/resolv.conf"  # the one in the data folder may be out of a slot id's reach
        self.fetch = f"{path}/fetch"
        self.scratch = f"{path}/scratch"
        self.base = f"{path}/base"
        self.network = f"{path}/network"
        self._copied: dict[str, tuple[int, int, int]] = {}

    def build(self) -> None:
        """Leaves the host's mount namespace for one of our own and sets the stage up in it."""
        os.makedirs(self.path, mode=0o755, exist_ok=True)
        unshare(CLONE_NEWNS)
        mount("", "/", None, MS_REC | MS_SLAVE)  # what the host mounts and unmounts later still comes through
        mount("runyard", self.path, "tmpfs", MS_NOSUID, "mode=755,size=64m")
        for name in _JOB_FOLDERS:
            os.mkdir(f"{self.path}/{name}", 0o755)
        with open(self.resolv_conf, "w") as file:
            file.write(RESOLV_CONF)
        os.chmod(self.resolv_conf, 0o644)
        self._build_devices()
        self._build_root()

    def refresh(self) -> None:
        """Copies the files of /etc again that changed since. Cheap where none did."""
        for path in host_tree.etc_entries():
            self._copy_file(path)

    def enter(self, workspace: str, tmp: str, outputs: str) -> None:
        """In the shim: a private copy of the namespace, with the attempt's folders and pseudo-terminals of its own."""
        unshare(CLONE_NEWNS)
        mount("", self.path, None, MS_REC | MS_PRIVATE)
        bind_folder(workspace, self.workspace)
        bind_folder(tmp, self.tmp)
        bind_folder(outputs, self.outputs)
        options = "newinstance,ptmxmode=0666,mode=620"
        mount("devpts", f"{self.devices}/pts", "devpts", MS_NOSUID, options)

    def make_secrets_folder(self) -> None:
        """In the shim: the mount point of secret files, in the host's allow-list, which is the same for all."""
        run = self.root + os.path.dirname(SECRETS)
        mount("runyard-run", run, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k")
        os.mkdir(self.root + SECRETS, 0o755)

    def layer_workspace(self, workspace: str, *, upper: str, work: str) -> None:
        """In the shim: from now on the workspace is a writable layer over the tree that was mounted at `base`."""
        mount_overlay(workspace, lower=self.base, upper=upper, work=work)
        unmount(self.workspace)
        bind_folder(workspace, self.workspace)

    def show_network(self, folder: str) -> str:
        """In the shim: the attempt's own /etc/resolv.conf and its like, where a slot's id finds them."""
        bind_folder(folder, self.network)
        return self.network

    def _build_devices(self) -> None:
        os.mkdir(self.devices, 0o755)
        for name in ("pts", "shm"):
            os.mkdir(f"{self.devices}/{name}", 0o755)
        for name, (major, minor) in _DEVICES.items():
            os.mknod(f"{self.devices}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
            os.chmod(f"{self.devices}/{name}", 0o666)
        for name, target in _DEVICE_LINKS.items():
            os.symlink(target, f"{self.devices}/{name}")

    def _build_root(self) -> None:
        os.makedirs(f"{self.root}/etc", mode=0o755)
        os.chmod(self.root, 0o755)
        for path in MOUNT_POINTS:
            os.mkdir(self.root + path, 0o755)
        for directory in ("/mnt", "/run", "/var", "/var/tmp", "/root", "/home"):
            os.mkdir(self.root + directory, 0o755)  # empty: many programs expect that they are there
        tree = host_tree.programs()
        for source, target in tree.binds:
            os.mkdir(self.root + target, 0o755)
            bind(source, self.root + target, read_only=True)
        for text, path in tree.links:
            os.symlink(text, self.root + path)
        host_tree.write_generated(f"{self.root}/etc")
        for path in host_tree.etc_entries():
            if os.path.isdir(path):
                os.mkdir(self.root + path, 0o755)
                bind(path, self.root + path, read_only=True)
            else:
                self._copy_file(path)

    def _copy_file(self, path: str) -> None:
        try:
            seen = os.lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(seen.st_mode) or self._copied.get(path) == (key := _signature(seen)):
            return
        target, temporary = self.root + path, f"{self.root}{path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if stat.S_ISLNK(seen.st_mode) and os.path.realpath(path).startswith("/usr/"):
            os.symlink(os.path.realpath(path), temporary)
        elif os.path.isfile(path):
            shutil.copyfile(path, temporary)
            os.chmod(temporary, 0o644)
        else:
            return
        os.replace(temporary, target)
        self._copied[path] = key


def _signature(seen: os.stat_result) -> tuple[int, int, int]:
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def mount_overlay(target: str, *, lower: str, upper: str, work: str) -> None:
    """A writable layer over a read-only tree, whose top keeps its owner and mode. A colon or comma in a path would be
    read as overlayfs's own."""
    for path in (lower, upper, work):
        if set(path) & set(":,\\"):
            raise ValueError(f"overlayfs cannot take the path {path!r}")
    os.makedirs(work, mode=0o755, exist_ok=True)
    os.makedirs(upper, mode=0o755, exist_ok=True)
    top = os.stat(lower)
    os.chown(upper, top.st_uid, top.st_gid)
    os.chmod(upper, stat.S_IMODE(top.st_mode))
    mount(
        "overlay",
        target,
        "overlay",
        MS_NOSUID | MS_NODEV,
        f"lowerdir={lower},upperdir={upper},workdir={work}",
    )
