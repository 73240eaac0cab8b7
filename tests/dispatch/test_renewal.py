"""A lease is renewed by a thread while the loop ticks, and by nobody when it is stuck."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from runyard.dispatch.ownership import PoolLease
from runyard.dispatch.renewal import LoopRenewal, Renewal, ThreadRenewal
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Ledger, Renewer
from runyard.model.errors import LedgerUnavailable
from runyard.model.pool import Fence
from tests.factories import a_pool_settings

LEASE_S = 0.5
PATIENCE_S = 20.0
IN_TIME_S = LEASE_S * 0.3
TOO_LONG_S = LEASE_S * 0.4
POOL = a_pool_settings().name


class WatchedClock:
    """Stands still until it is moved, and tells who looks at it."""

    def __init__(self) -> None:
        self.wall_s = 1_000_000.0
        self.boot_s = 100.0
        self.looks = 0
        self._looked = threading.Condition()
        self._loops_thread = threading.get_ident()

    def now(self) -> float:
        return self.wall_s

    def boottime(self) -> float:
        if threading.get_ident() != self._loops_thread:
            with self._looked:
                self.looks += 1
                self._looked.notify_all()
        return self.boot_s

    def block_until_seen(self, times: int) -> None:
        """Holds the caller's thread until the renewal's thread has looked that often."""
        with self._looked:
            seen = self.looks + times
            assert self._looked.wait_for(lambda: self.looks >= seen, timeout=PATIENCE_S)


class WatchedRenewer:
    """The ledger's own, counted; cut off while `is_cut`."""

    def __init__(self, renewer: Renewer) -> None:
        self._renewer = renewer
        self.asked = 0
        self.renewed = 0
        self.is_cut = False

    async def renew_pool(self, fence: Fence, *, lease_s: float) -> None:
        self.asked += 1
        if self.is_cut:
            raise LedgerUnavailable("it is cut off")
        await self._renewer.renew_pool(fence, lease_s=lease_s)
        self.renewed += 1

    async def close(self) -> None:
        await self._renewer.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 -- another thread makes it so
            await asyncio.sleep(0.001)


@pytest.fixture
def clock() -> WatchedClock:
    return WatchedClock()


@pytest.fixture
async def ledger(clock: WatchedClock) -> AsyncIterator[Ledger]:
    opened = create_ledger("sqlite://:memory:", clock=clock)
    await opened.open()
    await opened.put_pool(a_pool_settings())
    yield opened
    await opened.close()


@pytest.fixture
def renewer(ledger: Ledger) -> WatchedRenewer:
    return WatchedRenewer(ledger.renewer())


@pytest.fixture
async def thread(renewer: WatchedRenewer, clock: WatchedClock) -> AsyncIterator[ThreadRenewal]:
    renewal = ThreadRenewal(renewer, clock=clock)
    renewal.start()
    yield renewal
    await renewal.close()


@contextlib.asynccontextmanager
async def kept(lease: PoolLease) -> AsyncIterator[asyncio.Task[None]]:
    keeping = asyncio.create_task(lease.keep())
    try:
        yield keeping
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def take(ledger: Ledger, clock: WatchedClock, renewal: Renewal, *, owner: str = "me") -> PoolLease:
    lease = PoolLease(POOL, ledger=ledger, owner=owner, clock=clock, renewal=renewal, lease_s=LEASE_S)
    await lease.take()
    return lease


async def test_a_loop_that_is_stuck_keeps_no_lease(
    ledger: Ledger, clock: WatchedClock, thread: ThreadRenewal, renewer: WatchedRenewer
):
    lease = await take(ledger, clock, thread)
    async with kept(lease) as keeping:
        await until(lambda: renewer.renewed > 0)

        clock.boot_s += TOO_LONG_S  # and the loop is held up here all the while
        clock.block_until_seen(3)  # what was under way came to its end
        asked = renewer.asked
        clock.block_until_seen(4)
        assert renewer.asked == asked
        clock.boot_s += LEASE_S
        assert not lease.holds()

        async with asyncio.timeout(PATIENCE_S):
            await keeping
        assert lease.lost.is_set()
        assert renewer.asked == asked


async def test_a_loop_that_is_busy_but_ticks_loses_nothing(
    ledger: Ledger, clock: WatchedClock, thread: ThreadRenewal, renewer: WatchedRenewer
):
    lease = await take(ledger, clock, thread)
    async with kept(lease):
        await until(lambda: renewer.renewed > 0)
        for _ in range(6):
            renewed = renewer.renewed
            clock.boot_s += IN_TIME_S
            clock.block_until_seen(3)
            await until(lambda renewed=renewed: renewer.renewed > renewed)
            assert lease.holds()


async def test_a_loop_that_comes_back_within_the_lease_has_lost_nothing(
    ledger: Ledger, clock: WatchedClock, thread: ThreadRenewal, renewer: WatchedRenewer
):
    lease = await take(ledger, clock, thread)
    async with kept(lease):
        await until(lambda: renewer.renewed > 0)
        clock.boot_s += TOO_LONG_S
        clock.block_until_seen(4)
        renewed = renewer.renewed
        await until(lambda: renewer.renewed > renewed)
        clock.boot_s += LEASE_S - TOO_LONG_S + 0.01
        assert lease.holds()


@pytest.mark.parametrize("is_on_thread", [True, False], ids=["thread", "loop"])
async def test_a_renewal_that_fails_is_asked_again(
    ledger: Ledger, clock: WatchedClock, thread: ThreadRenewal, renewer: WatchedRenewer, is_on_thread: bool
):
    renewal = thread if is_on_thread else LoopRenewal(renewer)
    lease = await take(ledger, clock, renewal)
    async with kept(lease) as keeping:
        renewer.is_cut = True
        await until(lambda: renewer.asked >= 2)
        assert lease.holds()
        renewer.is_cut = False
        await until(lambda: renewer.renewed > 0)
        assert not keeping.done()


@pytest.mark.parametrize("is_on_thread", [True, False], ids=["thread", "loop"])
async def test_an_owner_that_stays_cut_off_stops_when_its_lease_ends(
    ledger: Ledger, clock: WatchedClock, thread: ThreadRenewal, renewer: WatchedRenewer, is_on_thread: bool
):
    renewal = thread if is_on_thread else LoopRenewal(renewer)
    lease = await take(ledger, clock, renewal)
    renewer.is_cut = True
    async with kept(lease) as keeping:
        await until(lambda: renewer.asked > 0)
        clock.boot_s += LEASE_S
        assert not lease.holds()
        async with asyncio.timeout(PATIENCE_S):
            await keeping
        assert lease.lost.is_set()


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
async def test_a_wall_clock_that_jumps_changes_nothing_for_the_holder(
    ledger: Ledger, clock: WatchedClock, thread: ThreadRenewal, renewer: WatchedRenewer, jump_s: float
):
    lease = await take(ledger, clock, thread)
    async with kept(lease):
        remaining_s = lease.remaining_s()
        clock.wall_s += jump_s
        assert lease.remaining_s() == remaining_s
        renewed = renewer.renewed
        await until(lambda: renewer.renewed > renewed)
        assert lease.holds()


async def test_an_owner_whose_pool_was_taken_learns_it_from_its_renewal(
    ledger: Ledger, clock: WatchedClock, thread: ThreadRenewal
):
    lease = await take(ledger, clock, thread)
    clock.wall_s += LEASE_S + 1
    await take(ledger, clock, thread, owner="other")
    async with asyncio.timeout(PATIENCE_S):
        await lease.keep()
    assert not lease.holds()


async def test_one_thread_keeps_the_leases_of_many_pools(
    ledger: Ledger, clock: WatchedClock, thread: ThreadRenewal, renewer: WatchedRenewer
):
    leases = []
    for number in range(10):
        await ledger.put_pool(a_pool_settings(name=f"pool-{number}"))
        lease = PoolLease(
            f"pool-{number}", ledger=ledger, owner="me", clock=clock, renewal=thread, lease_s=LEASE_S
        )
        await lease.take()
        leases.append(lease)
    async with contextlib.AsyncExitStack() as keeping:
        for lease in leases:
            await keeping.enter_async_context(kept(lease))
        for _ in range(4):
            renewed = renewer.renewed
            clock.boot_s += IN_TIME_S
            await until(lambda renewed=renewed: renewer.renewed >= renewed + 2 * len(leases))
        assert all(lease.holds() for lease in leases)
