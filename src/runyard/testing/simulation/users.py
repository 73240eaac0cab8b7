"""The users and operators of a simulated installation: they submit, cancel, try again, limit and pause."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from runyard.ledger.port import Ledger
from runyard.model.job import NewJob
from runyard.model.operation import OperationKind
from runyard.testing.simulation.scenario import QUIET_AT_S, Action, PlannedJob, Scenario

Checked = Callable[[str, str, tuple[Any, ...], object], None]


class Users:
    """Their own way to the ledger does not fail: what is under test is what becomes of what they asked for."""

    def __init__(
        self, scenario: Scenario, ledger: Ledger, *, plans: dict[str, PlannedJob], checked: Checked
    ) -> None:
        self._scenario = scenario
        self._ledger = ledger
        self._plans = plans
        self._checked = checked
        self._retries = 0

    async def run(self) -> None:
        """Everything at its time; at the end all pauses and limits are lifted, so that all can come to its end."""
        entries: list[PlannedJob | Action] = [*self._scenario.jobs, *self._scenario.actions]
        for entry in sorted(entries, key=lambda entry: entry.at):
            await asyncio.sleep(max(0.0, entry.at - asyncio.get_running_loop().time()))
            if isinstance(entry, PlannedJob):
                await self._submit(entry.new)
            else:
                await self._act(entry)
        await asyncio.sleep(max(0.0, QUIET_AT_S - asyncio.get_running_loop().time()))
        for queue in self._scenario.queues:
            await self._do("put_queue", queue)
        await self._do("set_pool_paused", self._scenario.pool.name, is_paused=False)

    async def _act(self, action: Action) -> None:
        planned = self._scenario.jobs[action.job]
        queue = self._scenario.queues[action.number % len(self._scenario.queues)]
        pool = self._scenario.pool.name
        match action.what:
            case "cancel":
                if await self._ledger.get_job(planned.new.uid):
                    await self._do("request_cancel", planned.new.uid)
            case "submit_again":
                await self._submit(planned.new)
            case "retry":
                await self._retry(planned)
            case "limit_queue":
                limit = 1 + action.number % 2
                await self._do("put_queue", dataclasses.replace(queue, running_max=limit))
            case "check":
                await self._do("request_operation", pool, OperationKind.CHECK_POOL, {})
            case "prune":
                await self._do("request_operation", pool, OperationKind.PRUNE, {"dry_run": False})
            case "pause_queue":
                await self._do("put_queue", dataclasses.replace(queue, is_paused=action.number % 3 > 0))
            case _:  # pause_pool
                await self._do("set_pool_paused", self._scenario.pool.name, is_paused=action.number % 3 > 0)

    async def _retry(self, planned: PlannedJob) -> None:
        """A new job with the old one's spec, as the API makes it of a final one."""
        old = await self._ledger.get_job(planned.new.uid)
        if old is None or not old.state.is_final:
            return
        self._retries += 1
        new = dataclasses.replace(
            planned.new,
            uid=f"r{self._retries:02d}{planned.new.uid[3:]}",
            id=f"{planned.new.id}-again-{self._retries}",
            retry_of=planned.new.uid,
        )
        self._plans[new.uid] = dataclasses.replace(planned, new=new)
        await self._submit(new)

    async def _submit(self, new: NewJob) -> None:
        await self._do("submit", [new])

    async def _do(self, call: str, *args: Any, **kwargs: Any) -> None:
        result = await getattr(self._ledger, call)(*args, **kwargs)
        self._checked("users", call, args, result)
