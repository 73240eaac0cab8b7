"""Faults put into the parts under test by wrapping them, each a mistake that somebody could make."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from runyard.dispatch.sweep import Sweep
from runyard.ledger.port import ClaimRequest
from runyard.ledger.sqlite.ledger import SqliteLedger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Unreachable
from runyard.model.machine import BindingState, MachineState
from runyard.model.outcome import lost
from runyard.model.pool import Fence
from runyard.testing.machine_provider import MachineProvider
from runyard.testing.machine_world import CONTACT_S
from runyard.testing.scripted_provider import ScriptedProvider
from runyard.testing.simulation.service import Plant


class Wrapped:
    """Passes on what is not changed."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class LedgerWith(Wrapped):
    _wrapped: SqliteLedger

    def sql(self, text: str, *values: object) -> None:
        assert self._wrapped._writer is not None
        self._wrapped._writer._connection.execute(text, values)

    def at_any_epoch(self, fence: Fence) -> Fence:
        assert self._wrapped._writer is not None
        row = self._wrapped._writer._connection.execute(
            "SELECT epoch FROM pools WHERE name = ?", (fence.pool,)
        ).fetchone()
        return fence if row is None else Fence(fence.pool, row["epoch"])

    def rows(self, text: str, *values: object) -> list[Any]:
        assert self._wrapped._writer is not None
        return list(self._wrapped._writer._connection.execute(text, values).fetchall())


class NoFencing(LedgerWith):
    def __getattr__(self, name: str) -> Any:
        method = getattr(self._wrapped, name)
        if name not in ("claim", "settle", "record_phases", "renew_pool", "set_availability", "list_demand"):
            return method

        async def call(first: Any, *args: Any, **rest: Any) -> Any:
            if isinstance(first, ClaimRequest):
                first = dataclasses.replace(first, fence=self.at_any_epoch(first.fence))
            else:
                first = self.at_any_epoch(first)
            return await method(first, *args, **rest)

        return call


class StaleClaim(LedgerWith):
    async def claim(self, request: ClaimRequest):
        fence = self.at_any_epoch(request.fence)
        return await self._wrapped.claim(dataclasses.replace(request, fence=fence))


class CapacityOffByOne(LedgerWith):
    async def claim(self, request: ClaimRequest):
        budget = dataclasses.replace(request.budget, cpu_millis=request.budget.cpu_millis + 1000)
        rooms = {key: room + 1 for key, room in request.rooms.items()}
        return await self._wrapped.claim(dataclasses.replace(request, budget=budget, rooms=rooms))


class QueueLimitOffByOne(LedgerWith):
    async def claim(self, request: ClaimRequest):
        self.sql("UPDATE queues SET running_max = running_max + 1")
        try:
            return await self._wrapped.claim(request)
        finally:
            self.sql("UPDATE queues SET running_max = running_max - 1")


class SettlesTwice(LedgerWith):
    async def settle(self, fence, key, outcome, **rest):
        await self._wrapped.settle(fence, key, outcome, **rest)
        self.sql("UPDATE attempts SET state = 'running' WHERE uid = ? AND number = ?", key.uid, key.number)
        return await self._wrapped.settle(fence, key, outcome, **rest)


class CancelIgnored(LedgerWith):
    async def settle(self, fence, key, outcome, *, decide, **rest):
        def blind(job, outcome, now):
            return decide(dataclasses.replace(job, cancel_requested_at=None), outcome, now)

        return await self._wrapped.settle(fence, key, outcome, decide=blind, **rest)


class UnseenCostsARetry(LedgerWith):
    async def settle(self, fence, key, outcome, *, decide, **rest):
        def strict(job, outcome, now):
            return decide(job, dataclasses.replace(outcome, was_seen=True), now)

        return await self._wrapped.settle(fence, key, outcome, decide=strict, **rest)


class ChargeNotCorrected(LedgerWith):
    async def settle(self, fence, key, outcome, **rest):
        assert self._wrapped._writer is not None
        connection = self._wrapped._writer._connection
        before = connection.execute("SELECT vtime, queue, tenant FROM shares").fetchall()
        job = await self._wrapped.settle(fence, key, outcome, **rest)
        for row in before:
            self.sql("UPDATE shares SET vtime = ? WHERE queue = ? AND tenant = ?", *row)
        return job


class LimitsByPool(LedgerWith):
    """A tenant's running limit holds in each pool, not over all of them."""

    async def claim(self, request: ClaimRequest):
        self.sql(
            "UPDATE fair SET is_blocked = 0 WHERE (SELECT count(*) FROM attempts a JOIN jobs j ON j.uid = a.uid"
            " WHERE a.state <> 'ended' AND a.pool = ? AND j.tenant = fair.tenant)"
            " < (SELECT running_max FROM tenants WHERE name = fair.tenant)",
            request.fence.pool,
        )
        return await self._wrapped.claim(request)


class TakesWhatItCannotRun(LedgerWith):
    """The claim does not ask whether the class fits the pool."""

    async def claim(self, request: ClaimRequest):
        rooms = {row["class_key"]: 1 for row in self.rows("SELECT class_key FROM classes")}
        return await self._wrapped.claim(dataclasses.replace(request, rooms=rooms))


class FollowsForeignAttempts(LedgerWith):
    """An owner adopts whatever is unfinished, of whichever pool."""

    async def list_unfinished(self, fence):
        unfinished = list(await self._wrapped.list_unfinished(fence))
        for row in self.rows("SELECT name, epoch FROM pools WHERE name <> ?", fence.pool):
            unfinished += await self._wrapped.list_unfinished(Fence(row["name"], row["epoch"]))
        return unfinished


class CaretakerIgnoresLease(LedgerWith):
    async def list_pools(self):
        return [dataclasses.replace(pool, owner=None) for pool in await self._wrapped.list_pools()]

    async def acquire_pool(self, name, *, owner, lease_s):
        if owner.endswith("/caretaker"):
            self.sql("UPDATE pools SET owner = NULL WHERE name = ?", name)
        return await self._wrapped.acquire_pool(name, owner=owner, lease_s=lease_s)


class ForgetsWithoutSettling(LedgerWith):
    """A pool that is given up goes, what it ran stays as it was."""

    async def list_unfinished(self, fence):
        unfinished = await self._wrapped.list_unfinished(fence)
        owner = (await self._wrapped.get_pool(fence.pool)).owner
        return [] if owner is None or owner.endswith("/caretaker") else unfinished


class DropsPoolsInUse(LedgerWith):
    async def delete_pool(self, name):
        self.sql("UPDATE pools SET starting = 0, running = 0 WHERE name = ?", name)
        await self._wrapped.delete_pool(name)


class DropsPoolsUnsettled(ForgetsWithoutSettling, DropsPoolsInUse):
    pass


class LogsOfUnfinishedJobsExpire(LedgerWith):
    async def list_expired_logs(self, *, ended_before, limit):
        found = self.rows(
            "SELECT uid, number FROM attempts WHERE is_logs_deleted = 0 AND ended_at < ? LIMIT ?",
            ended_before,
            limit,
        )
        return [AttemptKey(row["uid"], row["number"]) for row in found]


class ForgetsItsLogs(Wrapped):
    """A store of which a forgotten job's logs are not deleted with it: nothing knows them any more."""

    async def delete_job(self, uid):
        return None


class UnfinishedJobsExpire(LedgerWith):
    """By their submission, and deleted without a look at their state."""

    async def list_expired_jobs(self, *, ended_before, limit):
        found = self.rows(
            "SELECT uid FROM jobs WHERE submitted_at < ? AND state = 'queued' LIMIT ?", ended_before, limit
        )
        return [row["uid"] for row in found]

    async def delete_job(self, uid):
        self.sql("DELETE FROM jobs WHERE uid = ?", uid)


class UnbindsWhatIsTaken(LedgerWith):
    """An owner takes an attempt back that its machine runs already, and gives it to another."""

    async def bind_attempt(self, fence, key, machine):
        self.sql(
            "UPDATE bindings SET state = 'unbound', machine = NULL, taken_at = NULL"
            " WHERE uid = ? AND number = ? AND state = 'taken'",
            key.uid,
            key.number,
        )
        return await self._wrapped.bind_attempt(fence, key, machine)

    async def get_binding(self, key):
        binding = await self._wrapped.get_binding(key)
        if binding is None or binding.state is not BindingState.TAKEN:
            return binding
        return dataclasses.replace(binding, state=BindingState.UNBOUND, machine=None)


class DrainsBusyMachines(LedgerWith):
    """Idle as the owner saw it a moment ago is idle enough."""

    async def list_machines(self, pool, *, with_gone=False):
        return [
            dataclasses.replace(machine, held=0)
            for machine in await self._wrapped.list_machines(pool, with_gone=with_gone)
        ]

    async def change_machine(self, fence, name, *, seen, to, facts):
        if to is MachineState.DRAINING:
            self.sql("UPDATE machines SET state = 'draining' WHERE name = ? AND state = 'ready'", name)
        return await self._wrapped.change_machine(fence, name, seen=seen, to=to, facts=facts)


class CondemnsUnheard(LedgerWith):
    """A machine that did not call in for a moment is dead, and its attempts are lost with it, before it is ended."""

    async def fence_machine(self, fence, name, reason):
        await self._wrapped.fence_machine(fence, name, reason)
        self.sql("UPDATE machines SET state = 'gone' WHERE name = ?", name)
        return True


def hears_badly(provider: Any) -> Any:
    if isinstance(provider, MachineProvider):
        moment_s = 1.5 * CONTACT_S
        provider._is_silent = lambda machine, at: at - (machine.contact_at or at) > moment_s
    return provider


class ForgetsOnTakeover(LedgerWith):
    async def list_unfinished(self, fence):
        await self._wrapped.list_unfinished(fence)
        return []


class LostWakeUps(LedgerWith):
    """Neither the topic nor the timer behind it."""

    def subscribe(self, *topics):
        return Deaf(self._wrapped.subscribe(*topics))


class Deaf(Wrapped):
    async def wait(self, timeout_s):
        await asyncio.get_running_loop().create_future()


class SilenceIsAbsence(Wrapped):
    async def run_job(self, attempt, context):
        try:
            return await self._wrapped.run_job(attempt, context)
        except Unreachable as error:
            return lost(error.message, was_seen=False)


class StartsAgain(Wrapped):
    """run_job that is not idempotent: an adoption is a second start."""

    _wrapped: ScriptedProvider

    async def run_job(self, attempt, context):
        self._wrapped.world.places.pop(attempt.key.resource_name, None)
        return await self._wrapped.run_job(attempt, context)


class ClearsBeforeSettle(Wrapped):
    """Whoever owns the pool after a crash right then finds nothing, and starts it again. (Machines are no places that
    could be cleared so.)"""

    async def run_job(self, attempt, context):
        outcome = await self._wrapped.run_job(attempt, context)
        if isinstance(self._wrapped, ScriptedProvider):
            self._wrapped.world.destroy(attempt.key.resource_name)
        return outcome


class Careless(Wrapped):
    """A context that never says that the lease is too short for a create."""

    def may_create(self, within_s):
        return True


class CreatesTooLate(Wrapped):
    """Creates without asking for the lease, and nothing is left of what is settled that it could collide with: each
    of the two alone still keeps a waking owner from starting an attempt again."""

    @property
    def capabilities(self):
        return dataclasses.replace(self._wrapped.capabilities, is_host_bound=True)

    async def run_job(self, attempt, context):
        return await self._wrapped.run_job(attempt, Careless(context))


class NobodyLives(Wrapped):
    async def list_unfinished(self, fence):
        await self._wrapped.list_unfinished(fence)
        return []

    async def get_attempt(self, key):
        return None


def blind_sweep(*, ledger: Any, **rest: Any) -> Sweep:
    return Sweep(ledger=NobodyLives(ledger), **rest)


PLANTED: dict[str, tuple[Plant, set[str]]] = {
    "no fencing": (Plant(ledger=NoFencing), {"ownership"}),
    "stale claim after takeover": (Plant(ledger=StaleClaim), {"ownership", "I6"}),
    "capacity off by one": (Plant(ledger=CapacityOffByOne), {"I6"}),
    "limit of a queue off by one": (Plant(ledger=QueueLimitOffByOne), {"I6"}),
    "settle twice": (Plant(ledger=SettlesTwice), {"I12", "counters", "I1", "I2"}),
    "cancel flag ignored in settle": (Plant(ledger=CancelIgnored), {"cancel"}),
    "retry counted for unseen": (Plant(ledger=UnseenCostsARetry), {"I8"}),
    "charge not corrected": (Plant(ledger=ChargeNotCorrected), {"I12"}),
    "limit of a tenant by pool": (Plant(ledger=LimitsByPool), {"I6"}),
    "claim of what does not fit the pool": (Plant(ledger=TakesWhatItCannotRun), {"I6"}),
    "attempts of another pool adopted": (Plant(ledger=FollowsForeignAttempts), {"I3", "ownership"}),
    "caretaker ignores the lease": (Plant(ledger=CaretakerIgnoresLease), {"ownership"}),
    "forgotten without settling": (Plant(ledger=ForgetsWithoutSettling), {"I10"}),
    "pool dropped with what it runs": (Plant(ledger=DropsPoolsUnsettled), {"counters", "I10", "ownership"}),
    "log of an unfinished job expires": (Plant(ledger=LogsOfUnfinishedJobsExpire), {"retention"}),
    "job forgotten, its log left": (Plant(store=ForgetsItsLogs), {"retention"}),
    "unfinished job expires": (Plant(ledger=UnfinishedJobsExpire), {"I1", "retention"}),
    "taken back after the take": (Plant(ledger=UnbindsWhatIsTaken), {"I4", "once"}),
    "busy machine drained": (Plant(ledger=DrainsBusyMachines), {"I9"}),
    "machine lost without its end": (Plant(ledger=CondemnsUnheard, provider=hears_badly), {"I4", "once"}),
    "unfinished attempts not read at a takeover": (Plant(ledger=ForgetsOnTakeover), {"I10", "I6"}),
    "lost wake-up without timer": (Plant(ledger=LostWakeUps), {"I10"}),
    "silence read as absence": (Plant(provider=SilenceIsAbsence), {"I4", "once"}),
    "run_job not idempotent": (Plant(provider=StartsAgain), {"once"}),
    "cleared before it was settled": (Plant(provider=ClearsBeforeSettle), {"once"}),
    "neither lease nor tombstone at a create": (Plant(provider=CreatesTooLate), {"once"}),
    "sweep without living check": (Plant(sweep=blind_sweep), {"I9"}),
}
