"""Limits of an attempt as control groups, version 1 or 2, and what the groups tell about it.

Two tables say which file holds which limit; the rest is the same for both. An attempt has one group per hierarchy,
named like its resource, beneath a base of ours that lies outside the service's own group.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1_000
BASE_NAME = "runyard"
V1_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
V2_CONTROLLERS = ("memory", "pids", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an attempt may use. None is no limit."""

    memory_bytes: int | None = None
    pids_max: int | None = None
    cpu_millis: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One file to write; one that is not `is_required` may be missing in a kernel."""

    controller: str
    file: str
    value: str
    is_required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What happened in an attempt's group so far. None is unknown."""

    oom_kills: int = 0
    pids_refused: int = 0
    cpu_s: float | None = None
    memory_bytes_peak: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupTree:
    """Where attempts' groups are made: hierarchy -> our base in it. Version 2 has one hierarchy, named ''.
    Version 0: there are none."""

    version: int = 0
    bases: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"version": self.version, "bases": dict(self.bases)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CgroupTree:
        return cls(version=document["version"], bases=document["bases"])

    @property
    def controllers(self) -> tuple[str, ...]:
        return V2_CONTROLLERS if self.version == 2 else tuple(self.bases)


def settings(version: int, limits: Limits) -> list[Setting]:
    """The files to write for these limits, in order."""
    rows: list[Setting] = []
    if limits.memory_bytes is not None:
        rows += (_memory_v2 if version == 2 else _memory_v1)(limits.memory_bytes)
    if limits.pids_max is not None:
        rows.append(Setting(controller="pids", file="pids.max", value=str(limits.pids_max)))
    if limits.cpu_millis is not None:
        quota = max(CPU_QUOTA_US_MIN, limits.cpu_millis * CPU_PERIOD_US // 1000)
        if version == 2:
            rows.append(
                Setting(controller="cpu", file="cpu.max", value=f"{quota} {CPU_PERIOD_US}", is_required=False)
            )
        else:
            rows.append(Setting(controller="cpu", file="cpu.cfs_period_us", value=str(CPU_PERIOD_US)))
            rows.append(Setting(controller="cpu", file="cpu.cfs_quota_us", value=str(quota)))
    return rows


def _memory_v1(limit: int) -> list[Setting]:
    value = str(limit)
    return [
        Setting(controller="memory", file="memory.limit_in_bytes", value=value),
        Setting(
            controller="memory", file="memory.memsw.limit_in_bytes", value=value, is_required=False
        ),  # no swap
    ]


def _memory_v2(limit: int) -> list[Setting]:
    return [
        Setting(controller="memory", file="memory.max", value=str(limit)),
        Setting(controller="memory", file="memory.swap.max", value="0", is_required=False),
        Setting(controller="memory", file="memory.oom.group", value="1", is_required=False),
    ]


class AttemptCgroup:
    """The groups of one attempt. Every method is safe to repeat; missing groups count as empty."""

    def __init__(self, tree: CgroupTree, name: str) -> None:
        self._tree = tree
        self._name = name
        self._paths = {hierarchy: f"{base}/{name}" for hierarchy, base in tree.bases.items()}

    @property
    def exists(self) -> bool:
        return any(os.path.isdir(path) for path in self._paths.values())

    def create(self, limits: Limits) -> None:
        for path in self._paths.values():
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
        for row in settings(self._tree.version, limits):
            if (group := self._path_of(row.controller)) is not None:
                _write_setting(f"{group}/{row.file}", row)

    def beneath(self, name: str) -> AttemptCgroup:
        """A group of its own within this one's limits, once `hand_on` allowed it. This one then holds no process."""
        return AttemptCgroup(self._tree, f"{self._name}/{name}")

    def hand_on(self) -> None:
        """Lets groups beneath have limits of their own, before there are any."""
        if self._tree.version == 2:
            here = self._paths[""]
            there = _read(f"{here}/cgroup.controllers").split()
            _write(f"{here}/cgroup.subtree_control", " ".join(f"+{n}" for n in V2_CONTROLLERS if n in there))
        elif (memory := self._path_of("memory")) is not None:
            with contextlib.suppress(OSError):  # before Linux 5.11 a group counted only itself
                _write(f"{memory}/memory.use_hierarchy", "1")

    def join(self) -> None:
        """Moves this single-threaded process in. On version 1 through `tasks`, which spares the kernel a wait for
        all processors."""
        file = "cgroup.procs" if self._tree.version == 2 else "tasks"
        for path in self._paths.values():
            _write(f"{path}/{file}", "0")

    def processes(self) -> set[int]:
        """Those of groups beneath as well."""
        found: set[int] = set()
        for path in self._paths.values():
            for group in (path, *_beneath(path)):
                with contextlib.suppress(FileNotFoundError, OSError):
                    found.update(int(line) for line in _read(f"{group}/cgroup.procs").split())
        return found

    def signal(self, number: int, *, sparing: Iterable[int] = ()) -> None:
        for pid in self.processes() - set(sparing):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, *, deadline_s: float = 10.0, sleep: Callable[[float], None] = time.sleep) -> bool:
        """Ends every process in it. True once it is empty; False if some would not go in time (in the kernel)."""
        if not self.processes():
            return True
        pids = self._path_of("pids")
        if pids is not None:
            with contextlib.suppress(OSError):
                _write(f"{pids}/pids.max", "0")  # nothing forks away from the kill
        ends_at, pause_s = time.monotonic() + deadline_s, 0.0002
        while True:
            self._kill_once()
            sleep(pause_s)
            if not self.processes():
                return True
            if time.monotonic() > ends_at:
                return False
            pause_s = min(pause_s * 2, 0.02)

    def _kill_once(self) -> None:
        if self._tree.version == 2:
            with contextlib.suppress(OSError):
                _write(f"{self._paths['']}/cgroup.kill", "1")
                return
        self.signal(signal.SIGKILL)

    def remove(self) -> bool:
        """True once nothing of it is left."""
        is_gone = True
        for path in self._paths.values():
            for group in (*_beneath(path), path):
                try:
                    os.rmdir(group)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                        raise
                    is_gone = False
        return is_gone

    def counters(self) -> Counters:
        return self._counters_v2() if self._tree.version == 2 else self._counters_v1()

    def _counters_v1(self) -> Counters:
        memory, pids, cpuacct = map(self._path_of, ("memory", "pids", "cpuacct"))
        usage_ns = _number(cpuacct, "cpuacct.usage")
        return Counters(
            oom_kills=_keyed(memory, "memory.oom_control", "oom_kill"),
            pids_refused=_keyed(pids, "pids.events", "max"),
            cpu_s=None if usage_ns is None else usage_ns / 1e9,
            memory_bytes_peak=_number(memory, "memory.max_usage_in_bytes"),
        )

    def _counters_v2(self) -> Counters:
        path = self._paths[""]
        return Counters(
            oom_kills=_keyed(path, "memory.events", "oom_kill"),
            pids_refused=_keyed(path, "pids.events", "max"),
            cpu_s=_keyed(path, "cpu.stat", "usage_usec") / 1e6,
            memory_bytes_peak=_number(path, "memory.peak"),
        )

    def _path_of(self, controller: str) -> str | None:
        return self._paths.get("" if self._tree.version == 2 else controller)


def _beneath(path: str) -> list[str]:
    """The groups within a group, one level: most have none, which a link count tells without a listing."""
    try:
        if os.stat(path).st_nlink == 2:
            return []
        with os.scandir(path) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def detect(
    own_cgroup: str,
    mountinfo: str,
    *,
    is_root: bool,
    can_write: Callable[[str], bool] = lambda path: os.access(path, os.W_OK),
    available: Callable[[str], str] | None = None,
) -> CgroupTree:
    """The tree to use, from /proc/self/cgroup and /proc/self/mountinfo. Changes nothing.

    Judged by which hierarchies carry controllers, not by whether a unified mount is there (hybrid hosts have both).
    Root uses the top of each hierarchy, an ordinary user the topmost group that was delegated to him.
    """
    mounts = _mounts(mountinfo)
    v1 = {name: mounts[name] for name in V1_CONTROLLERS if name in mounts}
    if is_root and {"memory", "pids", "cpu"} <= v1.keys() and all(map(can_write, v1.values())):
        return CgroupTree(version=1, bases={name: f"{path}/{BASE_NAME}" for name, path in v1.items()})
    unified = mounts.get("")
    if unified is None or v1:
        return CgroupTree()
    top = unified if is_root else _topmost_delegated(unified, own_cgroup, can_write)
    read = available or (lambda path: _read(f"{path}/cgroup.controllers"))
    if top is None or not can_write(top) or not {"memory", "pids"} <= set(read(top).split()):
        return CgroupTree()
    return CgroupTree(version=2, bases={"": f"{top}/{BASE_NAME}"})


def prepare(tree: CgroupTree) -> None:
    """Makes the bases and lets them hand the controllers on. On version 2 the service may have to move into a leaf
    first: a group that hands controllers on holds no process."""
    for base in tree.bases.values():
        with contextlib.suppress(FileExistsError):
            os.mkdir(base)
    if tree.version != 2:
        return
    base = tree.bases[""]
    parent = os.path.dirname(base)
    there = _read(f"{parent}/cgroup.controllers").split()  # systemd does not delegate cpu to every user
    wanted = " ".join(f"+{name}" for name in V2_CONTROLLERS if name in there)
    try:
        _write(f"{parent}/cgroup.subtree_control", wanted)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _move_into_leaf(parent)
        _write(f"{parent}/cgroup.subtree_control", wanted)
    _write(f"{base}/cgroup.subtree_control", wanted)


def _move_into_leaf(parent: str) -> None:
    leaf = f"{parent}/runyard-service"
    with contextlib.suppress(FileExistsError):
        os.mkdir(leaf)
    for pid in _read(f"{parent}/cgroup.procs").split():
        with contextlib.suppress(ProcessLookupError):
            _write(f"{leaf}/cgroup.procs", pid)


def _mounts(mountinfo: str) -> dict[str, str]:
    """Controller -> mount point; '' is the unified hierarchy."""
    found: dict[str, str] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            found.setdefault("", fields[4])
        elif kind[0] == "cgroup":
            for name in kind[2].split(","):
                found.setdefault(name, fields[4])
    return found


def _topmost_delegated(unified: str, own_cgroup: str, can_write: Callable[[str], bool]) -> str | None:
    own = next((line[3:] for line in own_cgroup.splitlines() if line.startswith("0::")), None)
    if own is None:
        return None
    path, best = unified + own.rstrip("/"), None
    while path != unified and can_write(f"{path}/cgroup.procs") and can_write(path):
        best, path = path, os.path.dirname(path)
    return best


def _keyed(directory: str | None, file: str, key: str) -> int:
    if directory is None:
        return 0
    with contextlib.suppress(OSError):
        for line in _read(f"{directory}/{file}").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0


def _number(directory: str | None, file: str) -> int | None:
    if directory is None:
        return None
    try:
        return int(_read(f"{directory}/{file}"))
    except (OSError, ValueError):
        return None


def _write_setting(path: str, row: Setting) -> None:
    try:
        _write(path, row.value)
    except FileNotFoundError:
        if row.is_required:
            raise


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
