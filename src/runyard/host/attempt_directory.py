"""An attempt as a directory: its plan, its lock, its journal, a request to stop, and the job's own folders.

It survives the service. A held lock is the one proof of life; a journal that started, with the lock free and no end,
is proof of death.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from runyard.host.cgroups import AttemptCgroup, CgroupTree
from runyard.host.journal import ENDED, STARTED, JournalReader, Record
from runyard.host.linux import boot_id, boottime
from runyard.host.plan import Plan
from runyard.host.removal import remove_tree

PLAN, LOCK, JOURNAL, STOP, BEGAN = "plan.json", "lock", "journal", "stop", "began"
WORKSPACE, TMP, OUTPUTS, UPPER, WORK = "workspace", "tmp", "outputs", "upper", "work"
REPOSITORIES, BASE_UPPER, BASE_WORK = "repositories", "base-upper", "base-work"
WRITABLE = (WORKSPACE, TMP, OUTPUTS, UPPER, REPOSITORIES, BASE_UPPER)  # where what a job writes comes to lie
KILL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest:
    """Someone asked the attempt to end: TERM at once, KILL after `grace_s`. `asked_at` is on CLOCK_BOOTTIME."""

    grace_s: float
    asked_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """When an attempt began on this host: seconds of the clock, and CLOCK_BOOTTIME of the boot `boot_id`."""

    at: float
    boottime: float
    boot_id: str


class AttemptDirectory:
    """Paths and the verbs on them. Nothing is held open between calls."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / JOURNAL

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    @property
    def exists(self) -> bool:
        return os.path.exists(self.file(PLAN))

    def create(self, plan: Plan) -> None:
        """Writes the plan, whole or not at all. The first plan stays: a repeated create changes nothing."""
        os.makedirs(self.path, mode=0o711, exist_ok=True)
        if self.exists:
            return
        temporary = self.file(f".{PLAN}.{os.getpid()}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(plan.to_json())
        os.replace(temporary, self.file(PLAN))

    def begin(self) -> Began:
        """Before the plan, where that takes long to make: limits count from the first call, over a restart too."""
        os.makedirs(self.path, mode=0o711, exist_ok=True)
        with contextlib.suppress(OSError, ValueError, TypeError):
            began = Began(**json.loads(Path(self.file(BEGAN)).read_text()))
            if began.boot_id == boot_id():
                return began
        began = Began(at=time.time(), boottime=boottime(), boot_id=boot_id())
        temporary = self.file(f".{BEGAN}.{os.getpid()}")
        Path(temporary).write_text(json.dumps(asdict(began)))
        os.replace(temporary, self.file(BEGAN))
        return began

    def read_plan(self) -> Plan:
        return Plan.from_json(Path(self.file(PLAN)).read_text())

    def take_lock(self) -> int | None:
        """The lock, held for as long as the descriptor is open; None where another holds it."""
        fd = os.open(self.file(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def is_alive(self) -> bool:
        """Whether a shim works on it. (A shim that is just about to lock counts as none.)"""
        try:
            fd = os.open(self.file(LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def records(self) -> list[Record]:
        return JournalReader(self.file(JOURNAL)).read()

    def shim_pid(self) -> int | None:
        """The process that said it started; only to be believed while the lock is held."""
        started = next((record for record in self.records() if record["what"] == STARTED), None)
        return None if started is None else int(started["pid"])

    def is_ended(self) -> bool:
        return any(record["what"] == ENDED for record in self.records())

    def request_stop(self, grace_s: float) -> None:
        """Leaves the request where the shim looks, before or after it starts, and wakes it if it lives. The first
        request stays, so that repeating it puts nothing off."""
        os.makedirs(self.path, mode=0o711, exist_ok=True)
        if self.stop_request() is None:
            temporary = self.file(f".{STOP}.{os.getpid()}")
            Path(temporary).write_text(json.dumps({"grace_s": grace_s, "asked_at": boottime()}))
            os.replace(temporary, self.file(STOP))
        self._signal_shim(signal.SIGTERM)

    def stop_request(self) -> StopRequest | None:
        """What `request_stop` asked for, or None."""
        try:
            document = json.loads(Path(self.file(STOP)).read_text())
        except FileNotFoundError:
            return None
        return StopRequest(grace_s=document["grace_s"], asked_at=document.get("asked_at", boottime()))

    def kill_shim(self) -> bool:
        """Ends a shim that does not end by itself, and all that it ran. True once that is proven: the lock is free.
        Blocks: call it off the loop."""
        self._signal_shim(signal.SIGKILL)
        AttemptCgroup(self.read_plan().cgroups, self.name).kill()
        ends_at = boottime() + KILL_S
        while self.is_alive():
            if boottime() > ends_at:
                return False
            time.sleep(0.01)
        return True

    def destroy(self, cgroups: CgroupTree) -> None:
        """Ends whatever of it still runs and removes everything. Missing is success. Raises OSError naming what stays.
        Blocks: call it off the loop."""
        self._signal_shim(signal.SIGKILL)
        cgroup = AttemptCgroup(cgroups, self.name)
        cgroup.kill()
        cgroup.remove()
        remove_tree(self.path)

    def _signal_shim(self, number: int) -> None:
        if not self.is_alive():
            return
        pid = self.shim_pid()
        if pid is None:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if self.is_alive():  # it still is, so the number is still its own
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
