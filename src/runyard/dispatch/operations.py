"""What operators ask of a pool's owner: check it, prune it, give up what it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from runyard.dispatch.sweep import Sweep
from runyard.ledger.port import Ledger
from runyard.model.errors import Fenced, LedgerUnavailable, RunyardError
from runyard.model.machine import MachineState
from runyard.model.operation import Operation, OperationKind
from runyard.model.outcome import lost
from runyard.model.pool import Fence
from runyard.policy import retry
from runyard.providers.port import Provider

OPERATION_DEADLINE_S = 45.0

log = structlog.get_logger()


class PoolOperations:
    """Fulfils the operations of one pool, each once, under its owner's fence."""

    def __init__(self, *, ledger: Ledger, provider: Provider, sweep: Sweep) -> None:
        self._ledger = ledger
        self._provider = provider
        self._sweep = sweep

    async def fulfil(self, pool: str, fence: Fence) -> None:
        for operation in await self._ledger.list_operations(pool):
            try:
                async with asyncio.timeout(OPERATION_DEADLINE_S):
                    result = await self._result(operation, fence)
            except (Fenced, LedgerUnavailable):
                raise  # not this operation's fault: it is fulfilled by whoever owns the pool next, or in the next turn
            except RunyardError as error:
                result = {"ok": False, "message": error.message, "cure": error.cure}
            except TimeoutError:
                result = {"ok": False, "message": f"no answer within {OPERATION_DEADLINE_S:g} s"}
            except (
                Exception
            ) as error:  # answered all the same, or it would be tried, and fail, again for ever
                log.exception("operation_failed", pool=pool, kind=operation.kind.value)
                result = {
                    "ok": False,
                    "message": f"it failed: {type(error).__name__}",
                    "cure": "see the service's log",
                }
            log.info("operation_finished", pool=pool, kind=operation.kind.value, ok=result.get("ok"))
            await self._ledger.finish_operation(fence, operation.id, result)

    async def _result(self, operation: Operation, fence: Fence) -> Mapping[str, Any]:
        match operation.kind:
            case OperationKind.CHECK_POOL:
                findings = await self._provider.check()
                return {
                    "ok": all(finding.ok for finding in findings),
                    "findings": [
                        {"name": one.name, "ok": one.ok, "message": one.message, "cure": one.cure}
                        for one in findings
                    ],
                }
            case OperationKind.PRUNE:
                pruned = await self._sweep.run(
                    fence, is_dry_run=bool(operation.arguments.get("dry_run", True))
                )
                return {"ok": True, "destroyed": list(pruned.destroy), "kept": dict(pruned.kept)}
            case OperationKind.FORGET_POOL:
                return await forget(self._ledger, fence)


async def forget(ledger: Ledger, fence: Fence) -> Mapping[str, Any]:
    """The operator's word that the pool's host, or its fleet, is gone for good: the proof of death of all it ran."""
    reason = f"an operator declared pool '{fence.pool}' gone"
    for machine in await ledger.list_machines(fence.pool):
        await ledger.fence_machine(fence, machine.name, reason)
        await ledger.change_machine(
            fence, machine.name, seen=MachineState.ENDING, to=MachineState.GONE, facts={}
        )
    unfinished = await ledger.list_unfinished(fence)
    for claimed in unfinished:
        outcome = lost(reason, was_seen=claimed.attempt.started_at is not None)
        await ledger.settle(fence, claimed.attempt.key, outcome, decide=retry.decide)
    return {"ok": True, "lost": [claimed.attempt.key.resource_name for claimed in unfinished]}
