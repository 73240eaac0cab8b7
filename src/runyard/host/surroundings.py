"""What an attempt has around its steps that outlives each of them: the network that they share, its services. The shim
makes them only where the job asks for them, and they are gone with the shim."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

from runyard.host import verdict
from runyard.host.cgroups import AttemptCgroup
from runyard.host.network.attempt_network import AttemptNetwork
from runyard.host.pump import AttemptLog, LogDiskFull
from runyard.host.sandbox_command import Place, SharedNetwork
from runyard.host.services.attempt_services import AttemptServices, RunReady, Waiting, service_hosts
from runyard.host.verdict import Verdict


class Surroundings:
    """`start` says how the attempt ends where they cannot be made; `place` is where its steps run then."""

    def __init__(
        self, place: Place, cgroup: AttemptCgroup | None, log: AttemptLog, say: Callable[[str], None]
    ) -> None:
        self.place = place
        self._log = log
        self._cgroup = cgroup
        self._say = say
        self._network: AttemptNetwork | None = None
        self._services: AttemptServices | None = None

    def start(self) -> Verdict | None:
        plan, stage = self.place.plan, self.place.stage
        if stage is None:
            return verdict.lost("isolation", "a network that steps share needs a service that runs as root")
        try:
            hosts = service_hosts(plan.services)
            self._network = network = AttemptNetwork(plan, self.place.directory, self._say, hosts=hosts)
            network.start()
            shown = stage.show_network(network.folder)
        except OSError as error:
            return verdict.lost("isolation", f"the network of the job could not be made: {error}")
        files = tuple((f"{shown}/{name}", f"/etc/{name}") for name in sorted(os.listdir(network.folder)))
        self.place = replace(self.place, network=SharedNetwork(join=network.join, files=files))
        if not plan.services:
            return None
        signal.signal(signal.SIGCHLD, _only_wake)  # a service that ends ends the wait for a step
        self._services = AttemptServices(self.place, self._cgroup, self._log, self._say)
        return self._services.start()

    def await_ready(
        self,
        wakeup_fd: int,
        why_ended: Callable[[], str | None],
        run_ready: RunReady,
    ) -> Verdict | None:
        if self._services is None or self._network is None:
            return None
        waiting = Waiting(
            wakeup_fd=wakeup_fd, why_ended=why_ended, run_ready=run_ready, listeners=self._network.listeners
        )
        return self._services.await_ready(waiting)

    def watch(self) -> str | None:
        """Looks after them while a step runs. Words: it cannot go on."""
        if self._network is not None:
            with contextlib.suppress(LogDiskFull):
                self._network.look()
        return None if self._services is None else self._services.failure()

    def companions(self) -> set[int]:
        found = set() if self._network is None else self._network.companions
        return found if self._services is None else found | self._services.companions()

    def close(self, grace_s: float) -> None:
        """Ends them all, services after `grace_s`. Safe to repeat."""
        if self._services is not None:
            self._services.stop(grace_s)
            self._services = None
        if self._network is not None:
            with contextlib.suppress(LogDiskFull):
                self._network.look(is_last=True)
            self._network.close()
            self._network = None


def _only_wake(number: int, frame: FrameType | None) -> None:
    pass
