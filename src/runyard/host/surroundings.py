"""What an attempt has around its steps that outlives each of them: the network that they share. The shim makes it only
where the job asks for it, and it is gone with the shim."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace

from runyard.host import verdict
from runyard.host.network.attempt_network import AttemptNetwork
from runyard.host.plan import NETWORK_ALLOW, Plan
from runyard.host.pump import LogDiskFull
from runyard.host.sandbox_command import Place, SharedNetwork
from runyard.host.verdict import Verdict


def has_surroundings(plan: Plan) -> bool:
    return plan.network == NETWORK_ALLOW


class Surroundings:
    """`start` says how the attempt ends where they cannot be made; `place` is where its steps run then."""

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self.place = place
        self._say = say
        self._network: AttemptNetwork | None = None

    def start(self) -> Verdict | None:
        stage = self.place.stage
        if stage is None:
            return verdict.lost("isolation", "a network that steps share needs a service that runs as root")
        try:
            self._network = network = AttemptNetwork(self.place.plan, self.place.directory, self._say)
            network.start()
            shown = stage.show_network(network.folder)
        except OSError as error:
            return verdict.lost("isolation", f"the network of the job could not be made: {error}")
        files = tuple((f"{shown}/{name}", f"/etc/{name}") for name in sorted(os.listdir(network.folder)))
        self.place = replace(self.place, network=SharedNetwork(join=network.join, files=files))
        return None

    def watch(self) -> str | None:
        """Looks after them while a program runs. Words: it cannot go on."""
        if self._network is not None:
            with contextlib.suppress(LogDiskFull):
                self._network.look()
        return None

    def companions(self) -> set[int]:
        return set() if self._network is None else self._network.companions

    def close(self) -> None:
        """Ends them all. Safe to repeat."""
        if self._network is not None:
            with contextlib.suppress(LogDiskFull):
                self._network.look(is_last=True)
            self._network.close()
            self._network = None
