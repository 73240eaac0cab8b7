"""Answers for pools that nobody owns: an operator gives up a dead host's pool, or one that the config dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from runyard.dispatch.operations import forget
from runyard.dispatch.ownership import LEASE_S
from runyard.ledger.port import Ledger
from runyard.model.errors import Conflict, Fenced, LedgerUnavailable, NotFound
from runyard.model.operation import Operation, OperationKind
from runyard.model.pool import Fence, Pool

LOOK_S = 2.0

log = structlog.get_logger()


class Caretaker:
    """Any number of services may run one: the pool's lease decides who answers. `own_pools` have their dispatcher."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        owner: str,
        own_pools: frozenset[str],
        lease_s: float = LEASE_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._ledger = ledger
        self._owner = owner
        self._own_pools = own_pools
        self._lease_s = lease_s
        self._look_s = look_s

    async def run(self) -> None:
        await self._warn()
        while True:
            try:
                await self.tick()
            except LedgerUnavailable as error:
                log.error("ledger_unavailable", error=error.message)
            await asyncio.sleep(self._look_s)

    async def tick(self) -> None:
        for pool in await self._ledger.list_pools():
            if pool.settings.name not in self._own_pools and pool.owner is None:
                await self._look_after(pool)

    async def _warn(self) -> None:
        """Says which pools hold attempts that nobody here follows."""
        for pool in await self._ledger.list_pools():
            held = pool.starting + pool.running
            if pool.settings.name not in self._own_pools and pool.owner is None and held:
                cure = f"start the service that has it, or `runyard pool forget {pool.settings.name}`"
                log.warning("pool_without_owner", pool=pool.settings.name, attempts=held, cure=cure)

    async def _look_after(self, pool: Pool) -> None:
        name = pool.settings.name
        operations = await self._ledger.list_operations(name)
        if not operations:
            return
        fence = await self._ledger.acquire_pool(name, owner=f"{self._owner}/caretaker", lease_s=self._lease_s)
        if fence is None:
            return
        try:
            for operation in operations:
                result = await self._result(operation, fence)
                await self._ledger.finish_operation(fence, operation.id, result)
                log.info("operation_finished", pool=name, kind=operation.kind.value, ok=result["ok"])
        except Fenced:
            return  # its owner came back: it answers for itself
        finally:
            await self._ledger.release_pool(fence)
        if any(operation.kind is OperationKind.FORGET_POOL for operation in operations):
            await self._remove(name)

    async def _result(self, operation: Operation, fence: Fence) -> Mapping[str, Any]:
        if operation.kind is OperationKind.FORGET_POOL:
            return await forget(self._ledger, fence)
        return {
            "ok": False,
            "message": f"no running service acts for pool '{fence.pool}'",
            "cure": "start `runyard serve` on its host, or give it up with `runyard pool forget`",
        }

    async def _remove(self, name: str) -> None:
        try:
            await self._ledger.delete_pool(name)
        except (NotFound, Conflict):
            return  # somebody was quicker, or it is in use again
