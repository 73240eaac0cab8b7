"""Where an attempt runs, and what it is busy with until it does."""

import pytest

from runyard.ledger.port import Claimed
from runyard.model.attempt import PLACEMENT_FACTS_MAX, Attempt, Progress
from runyard.model.errors import Fenced
from tests.contracts.ledger.world import World

PULLING = Progress(text="pulling debian:12", at=7.5, fraction=0.25, done_bytes=1, total_bytes=4)


async def claimed_attempt(world: World) -> Claimed:
    await world.submit()
    [claimed] = await world.claim()
    return claimed


async def attempt_of(world: World, claimed: Claimed) -> Attempt:
    attempt = await world.ledger.get_attempt(claimed.attempt.key)
    assert attempt is not None
    return attempt


async def tell(world: World, claimed: Claimed, progress: Progress | None = None, **placement: str) -> None:
    fence = world.fences["local"]
    await world.ledger.record_status(fence, claimed.attempt.key, placement=placement, progress=progress)


async def test_placement_is_merged_and_its_newest_values_count(world: World):
    claimed = await claimed_attempt(world)
    await tell(world, claimed, machine="m1", zone="a")
    await tell(world, claimed, machine="m2", image="sha256:1")
    assert (await attempt_of(world, claimed)).placement == {"machine": "m2", "zone": "a", "image": "sha256:1"}
    await world.settle(claimed, placement={"node": "n"})
    assert (await attempt_of(world, claimed)).placement.keys() == {"machine", "zone", "image", "node"}


async def test_placement_is_bounded_and_what_is_there_stays(world: World):
    claimed = await claimed_attempt(world)
    await tell(world, claimed, machine="m" * 10_000, **{"n" * 500: "x"})
    await tell(world, claimed, **{f"a{number}": "x" for number in range(100)})
    placement = (await attempt_of(world, claimed)).placement
    assert len(placement) == PLACEMENT_FACTS_MAX
    assert {"machine", "n" * 40} <= placement.keys()
    assert len(placement["machine"]) == 300


async def test_progress_is_the_latest_and_tells_who_waits(world: World):
    claimed = await claimed_attempt(world)
    subscription = world.ledger.subscribe(f"job:{claimed.job.uid}")
    await tell(world, claimed, PULLING)
    assert await subscription.wait(0) == {f"job:{claimed.job.uid}"}
    assert (await attempt_of(world, claimed)).progress == PULLING
    await tell(world, claimed, Progress(text="cloning", at=8.0))
    assert (await attempt_of(world, claimed)).progress == Progress(text="cloning", at=8.0)
    await tell(world, claimed)
    assert (await attempt_of(world, claimed)).progress is None


async def test_progress_is_gone_once_it_runs_and_does_not_come_back(world: World):
    claimed = await claimed_attempt(world)
    await tell(world, claimed, PULLING)
    await world.run(claimed)
    assert (await attempt_of(world, claimed)).progress is None
    await tell(world, claimed, PULLING, machine="m")
    attempt = await attempt_of(world, claimed)
    assert (attempt.progress, attempt.placement) == (None, {"machine": "m"})


async def test_progress_is_gone_with_the_outcome_and_a_late_word_changes_nothing(world: World):
    claimed = await claimed_attempt(world)
    await tell(world, claimed, PULLING, machine="m")
    await world.settle(claimed)
    await tell(world, claimed, PULLING, machine="other")
    attempt = await attempt_of(world, claimed)
    assert (attempt.progress, attempt.placement) == (None, {"machine": "m"})


async def test_an_old_epoch_tells_nothing(world: World):
    claimed = await claimed_attempt(world)
    old = world.fences["local"]
    await world.own()
    with pytest.raises(Fenced):
        await world.ledger.record_status(old, claimed.attempt.key, placement={}, progress=PULLING)
    assert (await attempt_of(world, claimed)).progress is None


async def test_another_pool_tells_nothing_of_it(world: World):
    claimed = await claimed_attempt(world)
    other = await world.own("other")
    with pytest.raises(Fenced):
        await world.ledger.record_status(
            other, claimed.attempt.key, placement={"machine": "x"}, progress=None
        )
    assert (await attempt_of(world, claimed)).placement == {}
