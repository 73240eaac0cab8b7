"""The keeper of one service: a child of the shim's that runs it, drains what it prints and tells how it ended.

The shim follows one program at a time; each service has this process for itself. It ends with the shim, and its service
with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from runyard.host.attempt_directory import StopRequest
from runyard.host.cgroups import AttemptCgroup
from runyard.host.linux import adopt_orphans, boottime, die_with_parent, set_process_name
from runyard.host.mount_points import HostileRoot
from runyard.host.pump import AttemptLog
from runyard.host.step import Command, Program

REPORT_BYTES_MAX = 4096
WORDS_MAX = 300  # characters, which JSON may write with twelve bytes each: a report is never cut


class Keeper:
    """Started at once. `ended` says how the service ended, None while it runs: exit_code, signal, oom, or `error` where
    it never became the program."""

    def __init__(
        self,
        name: str,
        make_command: Callable[[], Command],
        *,
        log: AttemptLog,
        key: str,
        cgroup: AttemptCgroup | None,
        kill_grace_s: float,
    ) -> None:
        self._report, write_end = os.pipe2(os.O_CLOEXEC)
        self._ended: dict[str, Any] | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._report)
                report = _keep(name, make_command, log, key, cgroup, kill_grace_s)
                os.write(write_end, json.dumps(report).encode())
            finally:
                os._exit(0)
        os.close(write_end)
        self._pidfd = os.pidfd_open(self.pid)

    @property
    def ended(self) -> dict[str, Any] | None:
        if self._ended is None and self._is_readable(self._report, 0):
            data = os.read(self._report, REPORT_BYTES_MAX)
            self._ended = json.loads(data) if data else {"error": "the process that ran it was killed"}
        return self._ended

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def await_end(self, until: float) -> None:
        """Kills it where it is not gone by then (CLOCK_BOOTTIME)."""
        if not self._is_readable(self._pidfd, max(0.0, until - boottime())):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # reaped with orphans
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        os.close(self._report)

    def _is_readable(self, fd: int, timeout_s: float) -> bool:
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        return bool(waiting.poll(timeout_s * 1000))


def _keep(
    name: str,
    make_command: Callable[[], Command],
    log: AttemptLog,
    key: str,
    cgroup: AttemptCgroup | None,
    kill_grace_s: float,
) -> dict[str, Any]:
    """In the child, until the service has ended. TERM asks it to end, once."""
    asked_at: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not asked_at:
            asked_at.append(boottime())

    wakeup_fd, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    adopt_orphans()
    die_with_parent(signal.SIGKILL)
    set_process_name(f"svc:{name}")

    def stop_request() -> StopRequest | None:
        return StopRequest(grace_s=kill_grace_s, asked_at=asked_at[0]) if asked_at else None

    try:
        program = Program(
            make_command(),
            stdout=log.open(key, "stdout"),
            stderr=log.open(key, "stderr"),
            cgroup=cgroup,
            wakeup_fd=wakeup_fd,
            stop_request=stop_request,
        )
        end = program.run([], kill_grace_s=kill_grace_s)
    except (OSError, HostileRoot) as error:
        return {"error": str(error)[:WORDS_MAX]}
    report: dict[str, Any] = {"exit_code": end.exit_code, "signal": end.signal}
    if end.setup_error is not None:
        report["error"] = end.setup_error[:WORDS_MAX]
    if cgroup is not None and cgroup.counters().oom_kills:
        report["oom"] = True
    return report
