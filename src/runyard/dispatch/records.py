"""The Records of providers/port.py over the ledger: always under the owner's fence, so that a provider never sees it.

A provider is told no error but its own kind: an unavailable ledger and a lost pool are Unreachable, for in both cases
nothing is known and dispatch decides what comes next.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping

from runyard.dispatch.ownership import PoolLease
from runyard.ledger.port import Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Fenced, LedgerUnavailable, Unreachable
from runyard.model.machine import Binding, Machine, MachineState
from runyard.model.outcome import Outcome

WATCH_TIMER_S = 5.0
"""Behind the wake-up of a watch, which may be lost."""


class LeaseRecords:
    """The records of one ownership. Whoever holds them longer than that is told Unreachable."""

    def __init__(self, ledger: Ledger, lease: PoolLease) -> None:
        self._ledger = ledger
        self._lease = lease

    @property
    def epoch(self) -> int:
        return self._lease.fence.epoch

    async def now(self) -> float:
        with self._translated():
            return await self._ledger.now()

    # -- machines -------------------------------------------------------------------------------------------------
    async def intend_machine(
        self, name: str, *, slots: int, facts: Mapping[str, str] | None = None
    ) -> Machine:
        with self._translated():
            return await self._ledger.intend_machine(self._lease.fence, name, slots=slots, facts=facts or {})

    async def list_machines(self, *, with_gone: bool = False) -> list[Machine]:
        with self._translated():
            return await self._ledger.list_machines(self._lease.fence.pool, with_gone=with_gone)

    async def change_machine(
        self, name: str, *, seen: MachineState, to: MachineState, facts: Mapping[str, str] | None = None
    ) -> bool:
        with self._translated():
            return await self._ledger.change_machine(
                self._lease.fence, name, seen=seen, to=to, facts=facts or {}
            )

    async def fence_machine(self, name: str, reason: str) -> bool:
        with self._translated():
            return await self._ledger.fence_machine(self._lease.fence, name, reason)

    # -- attempts -------------------------------------------------------------------------------------------------
    async def bind(self, key: AttemptKey, machine: str) -> bool:
        with self._translated():
            return await self._ledger.bind_attempt(self._lease.fence, key, machine)

    async def unbind(self, key: AttemptKey) -> bool:
        with self._translated():
            return await self._ledger.unbind_attempt(self._lease.fence, key)

    async def ask_stop(self, key: AttemptKey, *, grace_s: float) -> None:
        with self._translated():
            await self._ledger.stop_attempt(self._lease.fence, key, grace_s=grace_s)

    async def end(self, key: AttemptKey, outcome: Outcome) -> Outcome | None:
        with self._translated():
            return await self._ledger.end_attempt(self._lease.fence, key, outcome)

    async def release(self, key: AttemptKey) -> bool:
        with self._translated():
            return await self._ledger.release_attempt(self._lease.fence, key)

    async def list_bindings(self, *, machine: str | None = None) -> list[Binding]:
        with self._translated():
            return await self._ledger.list_bindings(self._lease.fence.pool, machine=machine)

    async def get_binding(self, key: AttemptKey) -> Binding | None:
        with self._translated():
            return await self._ledger.get_binding(key)

    async def watch(
        self, key: AttemptKey, *, timer_s: float = WATCH_TIMER_S
    ) -> AsyncGenerator[Binding, None]:
        subscription = self._ledger.subscribe(f"job:{key.uid}", f"machines:{self._lease.fence.pool}")
        try:
            while (binding := await self.get_binding(key)) is not None:
                yield binding
                await subscription.wait(timer_s)
        finally:
            subscription.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        if not self._lease.holds():
            raise Unreachable("the pool is not owned here any more")
        try:
            yield
        except LedgerUnavailable as error:
            raise Unreachable(error.message) from error
        except Fenced as error:
            self._lease.lose()
            raise Unreachable(error.message) from error
