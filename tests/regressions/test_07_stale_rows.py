"""7: a batch of rows read before something changed is acted on after it."""

from __future__ import annotations

import asyncio

from runyard.model.attempt import AttemptKey
from runyard.model.job import JobState
from runyard.model.outcome import succeeded
from tests.regressions.conftest import Yard


class SlowToTell:
    """A ledger whose reads are answered late: what they say is true of the time at which they were made."""

    def __init__(self, ledger) -> None:
        self._ledger = ledger
        self.lag_s = 0.0

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    async def list_unfinished(self, fence):
        rows = await self._ledger.list_unfinished(fence)
        await asyncio.sleep(self.lag_s)
        return rows


async def test_an_attempt_that_ended_while_the_rows_were_on_their_way_is_not_started_again(
    yard: Yard,
) -> None:
    ledger = SlowToTell(yard.ledger)
    yard.start_owner(ledger=ledger, is_far=False)
    uid = await yard.submit()
    key = await yard.starts(uid)
    ledger.lag_s = 3.0
    await asyncio.sleep(1.5)  # the timer has asked for the rows meanwhile
    yard.world.end(key, succeeded())
    await yard.reaches(uid, JobState.SUCCEEDED)
    ledger.lag_s = 0.0
    await asyncio.sleep(60)
    assert yard.world.starts == {AttemptKey(uid, 1).resource_name: 1}
