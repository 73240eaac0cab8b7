"""How a lease that is held gets renewed: on the loop itself, or on a thread that does so only while the loop ticks.

A loop that is busy for a while (a collection, a long encode) must not lose its pools; one that is stuck must not keep
them. So the loop leaves a heartbeat and a thread renews while it is fresh, over a connection of its own: it waits for
no claim, and no full loop makes it late. On virtual time there is no thread, and the loop renews for itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from runyard.ledger.port import Renewer
from runyard.model.clock import Clock
from runyard.model.errors import Fenced, LedgerUnavailable
from runyard.model.pool import Fence

ASKS_PER_LEASE = 5
BEATS_PER_LEASE = 15
SILENT_LEASES_MAX = 1 / 3
"""How much of a lease the loop may be silent for before it counts as stuck. The lease lasts from the last renewal, so
a loop that comes back within two thirds of it has lost nothing."""

log = structlog.get_logger()


class Held(Protocol):
    """A lease as its renewal sees it. All but `lose` may be called from any thread."""

    @property
    def fence(self) -> Fence: ...

    @property
    def lease_s(self) -> float: ...

    def remaining_s(self) -> float:
        """How long it lasts still, if nobody renews it; 0 when it is lost."""
        ...

    async def renew(self, renewer: Renewer) -> None:
        """Asks once for more time. Raises Fenced where another owns the pool, LedgerUnavailable, TimeoutError."""
        ...

    def lose(self) -> None: ...


class Renewal(Protocol):
    async def keep(self, lease: Held) -> None:
        """Renews until the lease is lost, and says so by `lose`."""
        ...


class LoopRenewal:
    """Renews where it is called: a loop that is stuck does not get to it."""

    def __init__(self, renewer: Renewer) -> None:
        self._renewer = renewer

    async def keep(self, lease: Held) -> None:
        await _renew_until_lost(lease, self._renewer, is_alive=lambda: True)
        lease.lose()


class ThreadRenewal:
    """One thread for all pools of a service, from `start` to `close`. The renewer is used in that thread only."""

    def __init__(self, renewer: Renewer, *, clock: Clock) -> None:
        self._renewer = renewer
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lease-renewal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def close(self) -> None:
        """After the last `keep` has ended."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._renewer.close(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    async def keep(self, lease: Held) -> None:
        heart = Heart(self._clock, silent_s_max=lease.lease_s * SILENT_LEASES_MAX)
        renewing = asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(
                _renew_until_lost(lease, self._renewer, is_alive=heart.is_beating), self._loop
            )
        )
        try:
            while not renewing.done():
                heart.beat()
                await asyncio.wait({renewing}, timeout=lease.lease_s / BEATS_PER_LEASE)
        finally:
            renewing.cancel()
        lease.lose()


class Heart:
    """Beaten by the loop, listened to by the thread."""

    def __init__(self, clock: Clock, *, silent_s_max: float) -> None:
        self._clock = clock
        self._silent_s_max = silent_s_max
        self._beat_at = clock.boottime()

    def beat(self) -> None:
        self._beat_at = self._clock.boottime()

    def is_beating(self) -> bool:
        return self._clock.boottime() - self._beat_at <= self._silent_s_max


async def _renew_until_lost(lease: Held, renewer: Renewer, *, is_alive: Callable[[], bool]) -> None:
    """Returns when the lease ran out, or is another's."""
    bound = log.bind(pool=lease.fence.pool, epoch=lease.fence.epoch)
    while True:
        await asyncio.sleep(min(lease.lease_s / ASKS_PER_LEASE, lease.remaining_s()))
        if lease.remaining_s() <= 0:
            bound.error("lease_ran_out")
            return
        if not is_alive():
            bound.warning("lease_not_renewed", error="the event loop does not answer")
            continue
        try:
            await lease.renew(renewer)
        except Fenced as error:
            bound.error("lease_taken", error=error.message)
            return
        except (LedgerUnavailable, TimeoutError) as error:
            bound.error("lease_not_renewed", error=str(error) or "no answer")
        except Exception:  # whatever it is: the lease runs out by itself, or the next ask gets through
            bound.exception("lease_not_renewed")
