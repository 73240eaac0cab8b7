"""The users and operators of a simulated installation: they submit, cancel, read, delete, try again, limit and pause,
and give up pools."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from runyard.ledger.port import JobFilter
from runyard.model.errors import Conflict, NotFound
from runyard.model.job import NewJob
from runyard.model.operation import OperationKind
from runyard.testing.simulation.scenario import QUIET_AT_S, Action, Loss, PlannedJob, Scenario
from runyard.testing.simulation.service import Installation

ON_ITS_WAY_S = 20.0
"""For how long something may still be on its way to a site that nobody answered from: a lease, and a bit."""


class Users:
    """Their own way to the ledger does not fail: what is under test is what becomes of what they asked for."""

    def __init__(self, scenario: Scenario, shared: Installation, *, plans: dict[str, PlannedJob]) -> None:
        self._scenario = scenario
        self._ledger = shared.ledger
        self._shared = shared
        self._sites = shared.sites
        self._plans = plans
        self._made = 0

    async def run(self) -> None:
        """Everything at its time; at the end all is undone and given up that would keep jobs from their end."""
        losing = [asyncio.create_task(self._lose(loss)) for loss in self._scenario.losses]
        entries: list[PlannedJob | Action] = [*self._scenario.jobs, *self._scenario.actions]
        for entry in sorted(entries, key=lambda entry: entry.at):
            await _until(entry.at)
            if isinstance(entry, PlannedJob):
                await self._submit(entry.new)
            else:
                await self._act(entry)
        await _until(QUIET_AT_S + 1)
        await self._wind_up()
        await asyncio.gather(*losing)

    # -- pools ----------------------------------------------------------------------------------------------------
    async def _lose(self, loss: Loss) -> None:
        """An operator's word that what ran is dead is true: nobody answers there until it was heard, and nothing that
        was on its way arrives."""
        await _until(loss.at)
        world = self._sites.by_pool[loss.pool]
        if loss.is_final:
            world.perish()
        else:
            world.reboot()
            world.is_gone = True
        await asyncio.sleep(loss.told_after_s)
        await self._forget(loss.pool)
        if not loss.is_final:
            await asyncio.sleep(ON_ITS_WAY_S)
            world.is_gone = False

    async def _forget(self, pool: str) -> None:
        """Returns once it is answered, or the pool is gone."""
        try:
            operation = await self._do("request_operation", pool, OperationKind.FORGET_POOL, {})
        except NotFound:
            return
        while (asked := await self._ledger.get_operation(operation.id)) is not None:
            if asked.result is not None:
                return
            await asyncio.sleep(1.0)

    async def _wind_up(self) -> None:
        """Lifts pauses and limits, gives up the pools that nobody will ever serve again, and cancels what could run
        only there."""
        for queue in self._scenario.queues:
            await self._do("put_queue", queue)
        lasting = {pool.name: pool for pool in self._scenario.lasting_pools}
        for name, world in self._sites.by_pool.items():
            if name not in lasting:
                world.perish()
        for pool in await self._ledger.list_pools():
            name = pool.settings.name
            if name in lasting:
                await self._do("set_pool_paused", name, is_paused=False)
            else:
                await self._do("request_operation", name, OperationKind.FORGET_POOL, {})
        for uid, planned in self._plans.items():
            is_hopeless = not any(pool.could_run(planned.new.spec) for pool in lasting.values())
            if is_hopeless and await self._ledger.get_job(uid):
                await self._do("request_cancel", uid)

    # -- jobs -----------------------------------------------------------------------------------------------------
    async def _act(self, action: Action) -> None:
        planned = self._scenario.jobs[action.job]
        queue = self._scenario.queues[action.number % len(self._scenario.queues)]
        pool = self._scenario.pools[action.number % len(self._scenario.pools)].name
        try:
            match action.what:
                case "cancel":
                    await self._do("request_cancel", planned.new.uid)
                case "submit_again":
                    await self._submit(self._anew(planned, planned.new.id))
                case "retry":
                    await self._retry(planned)
                case "read":
                    await self._read()
                case "delete":
                    await self._delete(planned.new.uid)
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
                    await self._do("set_pool_paused", pool, is_paused=action.number % 3 > 0)
        except (NotFound, Conflict):
            return  # not submitted yet, deleted, not final, forgotten: they are told so

    async def _delete(self, uid: str) -> None:
        """As the API does it: what it left first."""
        job = await self._ledger.get_job(uid)
        if job is None or not job.state.is_final:
            return
        for attempt in await self._ledger.list_attempts(uid):
            await self._shared.logs.delete(attempt.key)
            await self._shared.artifacts.delete(attempt.key)
        await self._do("delete_job", uid)

    async def _read(self) -> None:
        """Page by page, while others delete and submit: nothing twice, and each attempt of what is still there."""
        seen: set[str] = set()
        cursor = None
        while True:
            page = await self._ledger.list_jobs(JobFilter(), limit=3, cursor=cursor)
            for job in page.jobs:
                assert job.uid not in seen, f"{job.uid} is on two pages"
                seen.add(job.uid)
                await self._ledger.list_attempts(job.uid)
            if page.next_cursor is None:
                return
            cursor = page.next_cursor
            await asyncio.sleep(0.1)

    async def _retry(self, planned: PlannedJob) -> None:
        """A new job with the old one's spec, as the API makes it of a final one."""
        old = await self._ledger.get_job(planned.new.uid)
        if old is not None and old.state.is_final:
            new = self._anew(planned, f"{planned.new.id}-again-{self._made}")
            await self._submit(dataclasses.replace(new, retry_of=planned.new.uid))

    def _anew(self, planned: PlannedJob, job_id: str) -> NewJob:
        """Each submit has a uid of its own, which counts if the id was not there."""
        self._made += 1
        new = dataclasses.replace(planned.new, uid=f"r{self._made:02d}{planned.new.uid[3:]}", id=job_id)
        self._plans[new.uid] = dataclasses.replace(planned, new=new)
        return new

    async def _submit(self, new: NewJob) -> None:
        await self._do("submit", [new])

    async def _do(self, call: str, *args: Any, **kwargs: Any) -> Any:
        result = await getattr(self._ledger, call)(*args, **kwargs)
        self._shared.checked("users", call, args, result)
        return result


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
