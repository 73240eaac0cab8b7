"""The services of one attempt as its shim sees them: started together, waited for until each is ready, watched while
the steps run, ended after them."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from runyard.host import verdict
from runyard.host.cgroups import AttemptCgroup, Limits
from runyard.host.linux import boottime
from runyard.host.plan import PlanService
from runyard.host.pump import AttemptLog
from runyard.host.sandbox_command import Place
from runyard.host.services.keeper import Keeper
from runyard.host.services.program import ready_command, service_command
from runyard.host.services.readiness import missing_ports
from runyard.host.services.words import LAST_BYTES, early_end, last_lines, service_address, shared_port
from runyard.host.step import CANCELED, SERVICE, START_TIMEOUT, Command, Deadline, ProgramEnd
from runyard.host.verdict import Verdict
from runyard.logs.layout import STREAMS, service_key, stream_file

LOG_PART = 4  # the services together may keep a quarter of the attempt's log
STOP_MARGIN_S = 2.0
READY_COMMAND_S = 10.0
_PAUSE_S, _PAUSE_S_MAX = 0.01, 0.25
RunReady = Callable[[Command, Deadline], ProgramEnd]


def service_hosts(services: Sequence[PlanService]) -> str:
    """Lines of /etc/hosts."""
    return "".join(f"{service_address(index)} {service.name}\n" for index, service in enumerate(services))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What the shim lends for the time of waiting: `run_ready` runs a command among the steps' processes."""

    wakeup_fd: int
    why_ended: Callable[[], str | None]
    run_ready: RunReady
    listeners: Callable[[], set[tuple[str, int]]]


class AttemptServices:
    """`cgroup` is the attempt's own group: each service has one within it. Root level only."""

    def __init__(
        self, place: Place, cgroup: AttemptCgroup | None, log: AttemptLog, say: Callable[[str], None]
    ) -> None:
        self._place = place
        self._log = log
        self._cgroup = cgroup
        self._say = say
        self._services = place.plan.services
        self._keepers: list[Keeper] = []

    def start(self) -> Verdict | None:
        """All of them at once."""
        plan = self._place.plan
        bytes_max = plan.log_bytes_max // LOG_PART // len(self._services)
        for index, service in enumerate(self._services):
            if not service.command:
                words = f"service '{service.name}': its image says no command"
                cure = f"give it one (services.{service.name}.command)"
                return verdict.failed(SERVICE, f"{words}; {cure}")
            group = None
            if self._cgroup is not None:
                group = self._cgroup.beneath(service_key(index))
                group.create(Limits(memory_bytes=service.memory_bytes, cpu_millis=service.cpu_millis))
            place = replace(self._place, cgroup=group)
            place.roots.user_namespace(service.image)  # made here, or its keeper could not wait for it
            self._keepers.append(
                Keeper(
                    service.name,
                    partial(service_command, place, service),
                    log=self._log.part(bytes_max),
                    key=service_key(index),
                    cgroup=group,
                    kill_grace_s=plan.kill_grace_s,
                )
            )
        return None

    def await_ready(self, waiting: Waiting) -> Verdict | None:
        """Until each is ready, the first that is not decides. None: they are."""
        began = boottime()
        for index, service in enumerate(self._services):
            end = self._await_one(index, service, waiting, began)
            if end is not None:
                return end
            self._say(f"service '{service.name}' was ready after {boottime() - began:.1f} s")
        return None

    def failure(self) -> str | None:
        """Words for one that ended although the steps are not done."""
        for index, keeper in enumerate(self._keepers):
            if keeper.ended is not None:
                return self._words_of(index, keeper.ended)
        return None

    def companions(self) -> set[int]:
        return {keeper.pid for keeper in self._keepers}

    def stop(self, grace_s: float) -> None:
        """TERM to all, KILL to what is not gone after `grace_s`. Nothing of them is alive afterwards."""
        until = boottime() + grace_s + STOP_MARGIN_S
        for keeper in self._keepers:
            keeper.terminate()
        for keeper in self._keepers:
            keeper.await_end(until)
        self._keepers.clear()
        if self._cgroup is not None:
            for index in range(len(self._services)):
                self._cgroup.beneath(service_key(index)).kill()

    def _await_one(self, index: int, service: PlanService, waiting: Waiting, began: float) -> Verdict | None:
        until, pause_s = began + service.ready_timeout_s, _PAUSE_S
        lacking = ""
        while True:
            why = waiting.why_ended()
            if why == CANCELED:
                return verdict.canceled(None)
            if why == START_TIMEOUT:
                return verdict.timed_out(START_TIMEOUT, self._place.plan.start_limit_s, None)
            words = self.failure()
            if words is not None:
                return verdict.failed(SERVICE, words)
            lacking = self._lacking(index, service, waiting, until)
            if not lacking:
                return None
            if boottime() > until:
                words = (
                    f"service '{service.name}' was not ready within {service.ready_timeout_s:g} s: {lacking}"
                )
                return verdict.failed(SERVICE, words + self._last_words(index))
            _pause(waiting.wakeup_fd, pause_s)
            pause_s = min(pause_s * 1.5, _PAUSE_S_MAX)

    def _lacking(self, index: int, service: PlanService, waiting: Waiting, until: float) -> str:
        """What it is not ready for; empty: it is."""
        missing = missing_ports(waiting.listeners(), service_address(index), service.ready_ports)
        if missing:
            return f"nothing listens on port {', '.join(map(str, missing))}"
        if not service.ready_command:
            return ""
        ends_at = min(boottime() + READY_COMMAND_S, max(until, boottime() + 1))
        end = waiting.run_ready(ready_command(self._place, service), Deadline(at=ends_at, why=START_TIMEOUT))
        if end.exit_code == 0 and end.why is None and end.setup_error is None:
            return ""
        ended = "took too long" if end.why else end.setup_error or f"ended with {end.exit_code}"
        return f"its ready command {service.ready_command[0]!r} {ended}"

    def _words_of(self, index: int, end: dict[str, Any]) -> str:
        service = self._services[index]
        if "error" in end:
            how = f"could not be run: {end['error'].removeprefix('setup: ').removeprefix('bwrap: ')}"
        elif end.get("oom"):
            how = "was killed: it used more memory than it may"
        elif end["signal"] is not None:
            how = f"was killed by signal {end['signal']}"
        else:
            how = f"ended with exit code {end['exit_code']}"
        why = shared_port(index, [(each.name, each.ready_ports) for each in self._services])
        return f"{early_end(service.name, how)}{why}{self._last_words(index)}"

    def _last_words(self, index: int) -> str:
        directory = Path(self._place.plan.log_directory)
        for stream in reversed(STREAMS):
            lines = last_lines(_read_end(stream_file(directory, service_key(index), stream)))
            if lines:
                return f"; its last words: {lines}"
        return ""


def _read_end(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - LAST_BYTES))
            return opened.read(LAST_BYTES)
    except FileNotFoundError:
        return b""


def _pause(wakeup_fd: int, pause_s: float) -> None:
    waiting = select.poll()
    waiting.register(wakeup_fd, select.POLLIN)
    if waiting.poll(pause_s * 1000):
        os.read(wakeup_fd, 512)
