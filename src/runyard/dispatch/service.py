"""All dispatching of one control-plane process: its pools, the timers and the sweeps behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from runyard.dispatch.caretaker import Caretaker
from runyard.dispatch.pool_dispatcher import PoolDispatcher
from runyard.dispatch.retention import Retention
from runyard.dispatch.timekeeper import Timekeeper
from runyard.model.errors import RunyardError

RESTART_S = 1.0
RETENTION_EVERY_S = 300.0

log = structlog.get_logger()


class Dispatcher:
    """Runs until `stop`. A part that fails is logged and started again; the others go on. `others` are loops of the
    stores, by name."""

    def __init__(
        self,
        pools: Sequence[PoolDispatcher],
        *,
        timekeeper: Timekeeper,
        retention: Retention,
        caretaker: Caretaker,
        others: Sequence[tuple[str, Callable[[], Awaitable[None]]]] = (),
    ) -> None:
        self._pools = list(pools)
        self._timekeeper = timekeeper
        self._retention = retention
        self._caretaker = caretaker
        self._others = tuple(others)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loops: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("timekeeper", self._timekeeper.run),
            ("retention", self._sweep_retention),
            ("caretaker", self._caretaker.run),
            *(("pool", pool.run) for pool in self._pools),
            *self._others,
        ]
        self._tasks = [asyncio.create_task(_forever(name, loop), name=name) for name, loop in loops]

    def add(self, pool: PoolDispatcher) -> None:
        """One whose place did not answer before."""
        self._pools.append(pool)
        self._tasks.append(asyncio.create_task(_forever("pool", pool.run), name="pool"))

    def not_ready(self) -> str | None:
        """Why this process does not dispatch yet; None once every pool of its own was taken."""
        waiting = [pool.name for pool in self._pools if not pool.is_owned]
        return f"pool '{waiting[0]}' is not owned yet" if waiting else None

    async def stop(self) -> None:
        """Lets go of everything; attempts run on and are adopted by the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def drain(self) -> None:
        """Takes nothing new, and returns when nothing is followed any more."""
        for pool in self._pools:
            pool.drain()
        await asyncio.gather(*(pool.drained() for pool in self._pools))

    async def _sweep_retention(self) -> None:
        while True:
            await self._retention.sweep()
            await asyncio.sleep(RETENTION_EVERY_S)


async def _forever(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """The one place where an unexpected error of a loop is caught: it is logged, and the loop starts again."""
    while True:
        try:
            await loop()
        except RunyardError as error:
            log.error("loop_failed", loop=name, error=error.message, cure=error.cure)
        except Exception:
            log.exception("loop_failed", loop=name)
        await asyncio.sleep(RESTART_S)
