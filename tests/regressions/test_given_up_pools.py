"""What the simulator found about pools that an operator gives up (`pool forget`) while their owner lives."""

from __future__ import annotations

import asyncio

from runyard.dispatch.caretaker import Caretaker
from runyard.model.job import JobState
from runyard.model.operation import OperationKind
from tests.regressions.conftest import Yard

SLOTS = 4


async def give_up(yard: Yard) -> None:
    asked = await yard.ledger.request_operation("local", OperationKind.FORGET_POOL, {})
    async with asyncio.timeout(60):
        while (await yard.ledger.get_operation(asked.id)).result is None:  # noqa: ASYNC110 -- virtual time
            await asyncio.sleep(0.1)


async def test_the_slots_of_what_was_given_up_are_free_again(yard: Yard) -> None:
    yard.start_owner()
    uids = [await yard.submit() for _ in range(SLOTS)]
    for uid in uids:
        await yard.starts(uid)
    yard.world.reboot()  # all of it dies, and nobody who listens hears of it
    await give_up(yard)
    await asyncio.sleep(60)
    assert await yard.ledger.promote_due(limit=10) == SLOTS
    for uid in uids:
        await yard.starts(uid, number=2, within_s=60)
    assert len(yard.world.running) == SLOTS


async def test_what_was_given_up_is_not_started_when_its_place_answers_again(yard: Yard) -> None:
    yard.play(lasts_s=1.0)
    yard.world.is_gone = True
    yard.start_owner()
    uid = await yard.submit()
    await yard.reaches(uid, JobState.STARTING)
    await give_up(yard)
    await asyncio.sleep(60)
    yard.world.is_gone = False
    await yard.ledger.promote_due(limit=10)
    await yard.reaches(uid, JobState.SUCCEEDED)
    await asyncio.sleep(60)
    assert len(yard.world.starts) == 1
    assert f"runyard-{uid}-1" not in yard.world.starts


async def test_an_owner_serves_its_pool_again_that_was_given_up_while_it_was_away(yard: Yard) -> None:
    yard.play(lasts_s=1.0)
    owner = yard.start_owner("service-1")
    await asyncio.sleep(1)
    owner.freeze()
    await asyncio.sleep(60)
    await yard.ledger.request_operation("local", OperationKind.FORGET_POOL, {})
    await Caretaker(ledger=yard.ledger, owner="service-2", own_pools=frozenset()).tick()
    assert await yard.ledger.get_pool("local") is None
    owner.thaw()
    uid = await yard.submit()
    await yard.reaches(uid, JobState.SUCCEEDED, within_s=60)
