"""The sweep over a provider's resources, with its guards."""

from __future__ import annotations

import pytest

from runyard.dispatch.sweep import Sweep
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Unreachable
from runyard.model.job import JobState
from runyard.model.pool import Fence
from runyard.providers.port import AttemptRequest
from runyard.testing.scripted_provider import Place, ScriptedProvider
from tests.dispatch.conftest import Yard
from tests.factories import a_spec

LEFT_OVER = AttemptKey("z" * 16, 1)


def leave_over(yard: Yard) -> None:
    request = AttemptRequest(key=LEFT_OVER, job_id="gone", spec=a_spec(), slot=0, epoch=1)
    yard.world.places[LEFT_OVER.resource_name] = Place(request=request, created_at=0.0)


async def owned(yard: Yard) -> tuple[Sweep, ScriptedProvider, Fence]:
    provider = ScriptedProvider(yard.world)
    fence = await yard.ledger.acquire_pool("local", owner="sweeper", lease_s=1000)
    assert fence is not None
    return Sweep(ledger=yard.ledger, provider=provider, clock=yard.clock), provider, fence


async def test_a_left_over_seen_twice_is_destroyed(yard: Yard) -> None:
    leave_over(yard)
    sweep, _, fence = await owned(yard)
    assert (await sweep.run(fence)).destroy == ()
    assert (await sweep.run(fence)).destroy == (LEFT_OVER.resource_name,)
    assert yard.world.places == {}


async def test_a_dry_run_destroys_nothing_and_counts_as_no_look(yard: Yard) -> None:
    leave_over(yard)
    sweep, _, fence = await owned(yard)
    await sweep.run(fence, is_dry_run=True)
    await sweep.run(fence, is_dry_run=True)
    assert yard.world.places
    assert (await sweep.run(fence)).destroy == ()


async def test_a_failed_or_partial_listing_proves_nothing(yard: Yard) -> None:
    leave_over(yard)
    sweep, provider, fence = await owned(yard)
    await sweep.run(fence)
    provider.list_errors = [Unreachable("timed out")]
    with pytest.raises(Unreachable):
        await sweep.run(fence)
    provider.lists_completely = False
    assert (await sweep.run(fence)).destroy == ()
    assert yard.world.places


async def test_a_living_attempts_place_is_kept(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    await yard.stop_owners()
    yard.clock.time += 1_000
    sweep, _, fence = await owned(yard)
    for _ in range(3):
        await sweep.run(fence)
    assert yard.world.running == [AttemptKey(uid, 1)]


async def test_one_that_cannot_be_removed_does_not_keep_the_others(yard: Yard) -> None:
    leave_over(yard)
    other = AttemptKey("y" * 16, 1)
    request = AttemptRequest(key=other, job_id="gone", spec=a_spec(), slot=0, epoch=1)
    yard.world.places[other.resource_name] = Place(request=request, created_at=0.0)
    sweep, provider, fence = await owned(yard)
    provider.destroy_errors = [RecursionError("a deep tree"), RecursionError("again")]
    await sweep.run(fence)
    await sweep.run(fence)
    await sweep.run(fence)
    assert yard.world.places == {}
