"""prune_unknown_resources, built once for every provider from its two small verbs and the guards of policy/prune."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from runyard.dispatch.telemetry import NoTelemetry, Telemetry
from runyard.ledger.port import Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.clock import Clock
from runyard.model.errors import ProviderError
from runyard.model.machine import MachineState
from runyard.model.pool import Fence
from runyard.policy.prune import Pruned, PruneState, choose_unknown
from runyard.providers.port import Provider

log = structlog.get_logger()


class Sweep:
    """Remembers the listing before, because a resource must be seen unknown twice before it is destroyed."""

    def __init__(
        self, *, ledger: Ledger, provider: Provider, clock: Clock, telemetry: Telemetry | None = None
    ) -> None:
        self._ledger = ledger
        self._provider = provider
        self._clock = clock
        self._telemetry = telemetry or NoTelemetry()
        self._state = PruneState()
        self._kept: Mapping[str, str] = {}

    async def run(self, fence: Fence, *, is_dry_run: bool = False) -> Pruned:
        """One sweep. Raises ProviderError when the listing failed (nothing is concluded), Fenced."""
        listing = await self._provider.list_resources()
        living = {claimed.attempt.key.resource_name for claimed in await self._ledger.list_unfinished(fence)}
        living |= {machine.name for machine in await self._ledger.list_machines(fence.pool)}
        pruned, state = choose_unknown(
            names={resource.name: resource.created_at for resource in listing.resources},
            is_complete=listing.is_complete,
            living=frozenset(living),
            before=self._state,
            now=self._clock.now(),
        )
        if is_dry_run:
            return pruned
        self._state = state
        self._tell(fence.pool, pruned)
        for name in pruned.destroy:
            await self._destroy(fence.pool, name)
        return pruned

    def _tell(self, pool: str, pruned: Pruned) -> None:
        """What is kept, and why, is said once and not in each sweep."""
        self._telemetry.resources_pruned(pool, destroyed=len(pruned.destroy), kept=len(pruned.kept))
        for name, why in pruned.kept.items():
            if self._kept.get(name) != why:
                log.info("resource_kept", pool=pool, resource=name, why=why)
        self._kept = pruned.kept

    async def _destroy(self, pool: str, name: str) -> None:
        key = AttemptKey.from_resource_name(name)
        attempt = await self._ledger.get_attempt(key) if key else None
        if attempt is not None and attempt.outcome is None:
            return  # claimed since the listing
        machine = await self._ledger.get_machine(name)
        if machine is not None and machine.state is not MachineState.GONE:
            return  # intended since the listing
        log.info("resource_pruned", pool=pool, resource=name)
        try:
            await self._provider.destroy_resource(name)
        except ProviderError as error:
            log.warning("resource_not_destroyed", pool=pool, resource=name, error=error.message)
        except Exception:  # one that cannot be removed must not keep the others
            log.exception("resource_not_destroyed", pool=pool, resource=name)
