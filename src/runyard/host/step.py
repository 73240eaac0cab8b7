"""One program of an attempt, from its start until nothing of it is left: output, time-outs, stop, kill.

Single-threaded: one poll over both pipes, bubblewrap's status descriptor, the child's pidfd and the shim's wake-up
descriptor. Deadlines are on CLOCK_BOOTTIME, so a wall clock that jumps, or a machine that slept, matters not.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from runyard.host.attempt_directory import StopRequest
from runyard.host.cgroups import AttemptCgroup
from runyard.host.disk_watch import DiskWatch
from runyard.host.linux import boottime
from runyard.host.process import SETUP_ERROR, Child, Identity, descendants, start
from runyard.host.pump import LogDiskFull

POLL_MAX_S = 30.0
DRAIN_MAX_S = 10.0
TERM_RETRY_S = 0.02
CANCELED, STEP_TIMEOUT, RUN_TIMEOUT, START_TIMEOUT = (
    "canceled",
    "step_timeout",
    "run_timeout",
    "start_timeout",
)
DISK, SERVICE = "disk", "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """When (CLOCK_BOOTTIME) it is up, and the word for it."""

    at: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramEnd:
    """How a program ended. `why` tells who ended it, if we did, and `words` more of it; `setup_error` that it never
    became the program."""

    exit_code: int | None = None
    signal: int | None = None
    why: str | None = None
    words: str = ""
    setup_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to execute. `is_sandboxed`: argv starts bubblewrap, which writes to `status_write` and exits with 128 + n
    for a command that died of signal n; it holds the command back until a byte
    comes through `block_write`. `stdin` is empty where it is not given; it and `inherit` are closed here once the
    program has them. `ready` is called with the sandbox's first process before the command runs."""

    argv: Sequence[str]
    env: Mapping[str, str]
    identity: Identity
    inherit: Sequence[int] = ()
    stdin: int = -1
    directory: str = "/"
    is_sandboxed: bool = True
    status_read: int = -1
    block_write: int = -1
    ready: Callable[[int], None] | None = None


class Sink(Protocol):
    """Where a stream goes. `last` holds its latest bytes."""

    @property
    def last(self) -> bytes: ...

    @property
    def idle_at(self) -> float | None:
        """When to call `show_idle` unless more comes (CLOCK_BOOTTIME)."""
        ...

    def drain(self, pipe: int) -> bool:
        """Moves one buffer from a pipe that never blocks. False at the end of the stream."""
        ...

    def show_idle(self, now: float) -> None: ...

    def close(self) -> None: ...


class Program:
    """A running command. `run` returns when neither it nor anything it started is alive."""

    def __init__(
        self,
        command: Command,
        *,
        stdout: Sink,
        stderr: Sink,
        cgroup: AttemptCgroup | None,
        wakeup_fd: int,
        stop_request: Callable[[], StopRequest | None],
        disk_watch: DiskWatch | None = None,
        watch: Callable[[], str | None] | None = None,
        companions: Callable[[], set[int]] = set,
    ) -> None:
        """`watch` is asked at each turn and ends the program with its words; `companions` are processes of ours that
        go on beside it."""
        self._command = command
        self._logs: dict[str, Sink] = {"stdout": stdout, "stderr": stderr}
        self._cgroup = cgroup
        self._wakeup_fd = wakeup_fd
        self._stop_request = stop_request
        self._disk_watch = disk_watch
        self._watch = watch
        self._companions = companions
        self._words = ""
        self._poll = select.poll()
        self._pipes: dict[int, Sink] = {}
        self._status = b""
        self._status_open = False
        self._init_pid: int | None = None
        self._init_pidfd = -1
        self._wait_status: int | None = None
        self._why: str | None = None
        self._setup_error: str | None = None
        self._kill_at: float | None = None
        self._term_is_due = False

    def run(
        self, deadlines: Sequence[Deadline], *, kill_grace_s: float, started: Callable[[], None] | None = None
    ) -> ProgramEnd:
        child = self._start()
        try:
            if started is not None:
                started()
            self._follow(child, sorted(deadlines, key=lambda deadline: deadline.at), kill_grace_s)
            self._await_emptiness()
            return replace(self._end(child), words=self._words)
        finally:
            self._close(child)

    def _start(self) -> Child:
        pipes = {name: os.pipe2(os.O_CLOEXEC) for name in self._logs}
        user_id, group_id = self._command.identity.user_id, self._command.identity.group_id
        for name, (read_end, write_end) in pipes.items():
            if user_id is not None:
                os.fchown(
                    write_end, user_id, user_id if group_id is None else group_id
                )  # or the job could not open /dev/stderr
            os.set_blocking(read_end, False)  # what the poll announces, the job may have read
            self._pipes[read_end] = self._logs[name]
            self._poll.register(read_end, select.POLLIN)
        try:
            child = start(
                self._command.argv,
                env=self._command.env,
                stdout=pipes["stdout"][1],
                stderr=pipes["stderr"][1],
                identity=self._command.identity,
                inherit=self._command.inherit,
                directory=self._command.directory,
                stdin=self._command.stdin,
            )
        finally:
            for _, write_end in pipes.values():
                os.close(write_end)
            for fd in (*self._command.inherit, self._command.stdin):
                if fd >= 0:
                    os.close(fd)
        if self._command.status_read >= 0:
            self._status_open = True
            os.set_blocking(self._command.status_read, False)
            self._poll.register(self._command.status_read, select.POLLIN)
        self._poll.register(child.pidfd, select.POLLIN)
        self._poll.register(self._wakeup_fd, select.POLLIN)
        return child

    def _follow(self, child: Child, deadlines: Sequence[Deadline], kill_grace_s: float) -> None:
        drain_until: float | None = None
        while self._wait_status is None or self._pipes or self._status_open:
            now = boottime()
            if self._wait_status is None:
                self._enforce(child, deadlines, kill_grace_s, now)
            elif drain_until is None:
                drain_until = now + DRAIN_MAX_S
            elif now > drain_until:
                break  # something unkillable still holds a pipe; _await_emptiness reports it
            self._show_idle(child, now)
            for fd, _ in self._poll.poll(self._timeout_ms(deadlines, now)):
                self._handle(child, fd)

    def _enforce(self, child: Child, deadlines: Sequence[Deadline], kill_grace_s: float, now: float) -> None:
        if self._why is None:
            request = self._stop_request()
            passed = next((deadline for deadline in deadlines if deadline.at <= now), None)
            if request is not None:
                self._terminate(CANCELED, request.grace_s, now)
            elif passed is not None:
                self._terminate(passed.why, kill_grace_s, now)
            elif self._disk_watch is not None and (words := self._disk_watch.check()):
                self._words = words
                self._terminate(DISK, 0, now)
            elif self._watch is not None and (words := self._watch()):
                self._words = words
                self._terminate(SERVICE, kill_grace_s, now)
        if self._term_is_due:
            self._send_term(child)
        if self._setup_error is not None or (self._kill_at is not None and now >= self._kill_at):
            self._kill(child)

    def _timeout_ms(self, deadlines: Sequence[Deadline], now: float) -> float:
        times = [now + POLL_MAX_S if self._wait_status is None else now + 0.5]
        if self._kill_at is not None:
            times.append(min(self._kill_at, now + TERM_RETRY_S) if self._term_is_due else self._kill_at)
        elif self._why is None and deadlines:
            times.append(deadlines[0].at)
        if self._disk_watch is not None and self._why is None:
            times.append(self._disk_watch.next_at)
        times += [sink.idle_at for sink in self._pipes.values() if sink.idle_at is not None]
        return max(0.0, (min(times) - now) * 1000 + 1)

    def _handle(self, child: Child, fd: int) -> None:
        if fd in self._pipes:
            self._drain(child, fd)
        elif fd == self._command.status_read:
            self._read_status()
        elif fd == child.pidfd:
            self._poll.unregister(fd)
            self._wait_status = os.waitpid(child.pid, 0)[1]
            self._kill_leftovers()
        elif fd == self._wakeup_fd:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 512)

    def _drain(self, child: Child, fd: int) -> None:
        try:
            if self._pipes[fd].drain(fd):
                return
        except LogDiskFull:
            self._end_by_full_disk(child)
        self._poll.unregister(fd)
        os.close(fd)
        del self._pipes[fd]

    def _show_idle(self, child: Child, now: float) -> None:
        try:
            for sink in self._pipes.values():
                sink.show_idle(now)
        except LogDiskFull:
            self._end_by_full_disk(child)

    def _end_by_full_disk(self, child: Child) -> None:
        self._why = DISK
        if self._wait_status is None:
            self._kill(child)

    def _read_status(self) -> None:
        try:
            data = os.read(self._command.status_read, 4096)
        except BlockingIOError:
            return
        self._status += data
        if not data:
            self._status_open = False
            self._poll.unregister(self._command.status_read)
        elif self._init_pid is None and b"\n" in self._status:
            self._init_pid = int(_merged(self._status)["child-pid"])
            with contextlib.suppress(ProcessLookupError):
                self._init_pidfd = os.pidfd_open(self._init_pid)
            if self._command.ready is not None:
                try:
                    self._command.ready(self._init_pid)
                except OSError as error:
                    self._setup_error = f"{SETUP_ERROR}{error}"

    def _terminate(self, why: str, grace_s: float, now: float) -> None:
        self._why = why
        self._kill_at = now + grace_s
        self._term_is_due = grace_s > 0

    def _send_term(self, child: Child) -> None:
        """To each process of the job, once. While bubblewrap still makes the sandbox there is none: later again."""
        if self._command.is_sandboxed and self._init_pid is None:
            return
        spared = {child.pid, self._init_pid} if self._command.is_sandboxed else set()
        for pid in self._members(child) - spared:
            self._term_is_due = False
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _members(self, child: Child) -> set[int]:
        """Every process of the program, as far as can be told; bubblewrap's two are among them."""
        if self._cgroup is not None:
            return self._cgroup.processes()
        return descendants(child.pid) | {child.pid}

    def _kill(self, child: Child) -> None:
        """bubblewrap's end takes its whole process namespace with it."""
        self._kill_at, self._term_is_due = None, False
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)

    def _kill_leftovers(self) -> None:
        """The command ended: what it left behind ends too, however it hid. The first process of a sandbox takes all
        with it; one that bubblewrap left in the making is not yet bound to bubblewrap's life."""
        if self._init_pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init_pidfd, signal.SIGKILL)
            return
        if self._cgroup is not None:
            self._cgroup.kill()
        for pid in descendants(os.getpid()) - _families(self._companions()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _await_emptiness(self) -> None:
        if self._init_pidfd >= 0:
            waiting = select.poll()
            waiting.register(self._init_pidfd, select.POLLIN)
            if not waiting.poll(100):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._init_pidfd, signal.SIGKILL)
                waiting.poll(DRAIN_MAX_S * 1000)
        if self._cgroup is not None:
            self._cgroup.kill()
        _reap_orphans()

    def _end(self, child: Child) -> ProgramEnd:
        assert self._wait_status is not None
        error = child.read_error() or self._setup_error
        if error:
            if self._command.is_sandboxed and not error.startswith(SETUP_ERROR):
                error = f"{SETUP_ERROR}{self._command.argv[0]} could not be started: {error}"
            return ProgramEnd(why=self._why, setup_error=error)
        if not self._command.is_sandboxed:
            return _plain_end(self._wait_status, self._why)
        code = _merged(self._status).get("exit-code")
        if code is None and os.WIFSIGNALED(self._wait_status):
            return ProgramEnd(signal=os.WTERMSIG(self._wait_status), why=self._why)
        if code is None and self._why is None:
            return ProgramEnd(setup_error=_last_words(self._logs["stderr"].last, self._wait_status))
        return _sandboxed_end(code, self._why)

    def _close(self, child: Child) -> None:
        child.close()
        for fd in (*self._pipes, self._init_pidfd, self._command.status_read):
            if fd >= 0:
                os.close(fd)
        for log in self._logs.values():
            log.close()


def _families(pids: set[int]) -> set[int]:
    return pids.union(*map(descendants, pids))


def _merged(status: bytes) -> dict[str, int]:
    """bubblewrap writes one JSON object a line: child-pid first, exit-code last, if the command was executed."""
    merged: dict[str, int] = {}
    for line in status.splitlines():
        with contextlib.suppress(ValueError):
            merged.update(json.loads(line))
    return merged


def _plain_end(wait_status: int, why: str | None) -> ProgramEnd:
    if os.WIFSIGNALED(wait_status):
        return ProgramEnd(signal=os.WTERMSIG(wait_status), why=why)
    return ProgramEnd(exit_code=os.WEXITSTATUS(wait_status), why=why)


def _sandboxed_end(code: int | None, why: str | None) -> ProgramEnd:
    """A code above 128 is read as a signal: bubblewrap does not tell `exit 137` from a kill."""
    if code is not None and 128 < code <= 128 + signal.NSIG - 1:
        return ProgramEnd(exit_code=code, signal=code - 128, why=why)
    return ProgramEnd(exit_code=code, why=why)


def _last_words(stderr: bytes, wait_status: int) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    if lines and lines[-1].startswith("bwrap: "):
        return lines[-1]
    return f"bwrap ended with wait status {wait_status} before the command ran"


def _reap_orphans() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
