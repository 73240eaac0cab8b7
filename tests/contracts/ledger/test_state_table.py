"""The event-by-state table of ARCHITECTURE.md is true: each of its cells is a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runyard.ledger.port import Claimed, Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import RunyardError
from runyard.model.job import Job, JobState, Limits, NewJob, Retry
from runyard.model.outcome import Outcome, OutcomeKind, ReasonCode, lost, refused, succeeded
from runyard.model.pool import Fence
from runyard.policy import retry
from tests.contracts.ledger.world import World, new_job

ARCHITECTURE = Path(__file__).parents[3] / "ARCHITECTURE.md"
SECTION = "## Events and states"
UNCHANGED = "·"
QUEUE_S = 30.0


def read_table() -> list[tuple[str, str, str]]:
    """(event, state, cell), for every cell."""
    section = ARCHITECTURE.read_text().partition(f"\n{SECTION}\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ") for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    head, _, *body = rows
    return [(row[0], state, cell) for row in body for state, cell in zip(head[1:], row[1:], strict=True)]


@dataclass
class Story:
    """A job in a state, and what belongs to it. `key` is of its latest attempt, or of the first one if none was."""

    world: World
    new: NewJob
    key: AttemptKey
    fence: Fence

    @property
    def ledger(self) -> Ledger:
        return self.world.ledger

    async def settle(self, outcome: Outcome) -> None:
        await self.ledger.settle(self.fence, self.key, outcome, decide=retry.decide)


async def build(world: World, state: str, *, retries: int) -> Story:
    if state == "backing off":
        retries = 1
    fence = await world.own()
    spec = {
        "retry": Retry(infrastructure=retries, failure=retries),
        "limits": Limits(queue_s=QUEUE_S),
    }
    new = new_job(1, **spec)
    await world.ledger.submit([new])
    story = Story(world, new, AttemptKey(new.uid, 1), fence)
    if state != "queued":
        (claimed,) = await world.claim()
        await _go_on(story, claimed, state)
    return story


async def _go_on(story: Story, claimed: Claimed, state: str) -> None:
    if state in ("running", "canceling", "backing off", "final"):
        await story.world.run(claimed)
    if state == "canceling":
        await story.ledger.request_cancel(story.new.uid)
    if state == "backing off":
        await story.settle(lost("the host died", was_seen=True))
    if state == "final":
        await story.settle(succeeded())


FAILED = Outcome(kind=OutcomeKind.FAILED, exit_code=1)
LOST = lost("the host died", was_seen=True)


async def submit(story: Story, new: NewJob) -> None:
    (answer,) = await story.ledger.submit([new])
    if isinstance(answer, Exception):
        raise answer
    assert not answer.is_new


async def pass_queue_deadline(story: Story) -> None:
    """Only the deadline is looked at: no retry falls due by it."""
    story.world.clock.advance(QUEUE_S + 1)
    await story.ledger.expire_queued(limit=10)


async def let_retry_fall_due(story: Story) -> None:
    story.world.clock.advance(10)
    await story.ledger.promote_due(limit=10)


async def settle_twice(story: Story) -> None:
    await story.settle(succeeded())
    await story.settle(FAILED)


async def lose_owner(story: Story) -> None:
    story.world.clock.advance(60)
    assert await story.ledger.acquire_pool("local", owner="another", lease_s=30) is not None


async def settle_by_old_owner(story: Story) -> None:
    await lose_owner(story)
    await story.settle(succeeded())


EVENTS: dict[str, Callable[[Story], Awaitable[object]]] = {
    "submit again, same spec": lambda story: submit(story, story.new),
    "submit again, another spec": lambda story: submit(story, replace(story.new, spec_hash="another")),
    "claim": lambda story: story.world.claim(),
    "phase running": lambda story: story.ledger.record_phases(story.fence, story.key, {"running": 1.0}),
    "cancel": lambda story: story.ledger.request_cancel(story.new.uid),
    "queue deadline passes": pass_queue_deadline,
    "retry falls due": let_retry_fall_due,
    "settle succeeded": lambda story: story.settle(succeeded()),
    "settle failed, a retry left": lambda story: story.settle(FAILED),
    "settle failed, none left": lambda story: story.settle(FAILED),
    "settle timed out": lambda story: story.settle(Outcome(kind=OutcomeKind.TIMED_OUT)),
    "settle canceled": lambda story: story.settle(Outcome(kind=OutcomeKind.CANCELED)),
    "settle refused": lambda story: story.settle(refused(ReasonCode.PROVIDER, "no such shape")),
    "settle lost, seen, a retry left": lambda story: story.settle(LOST),
    "settle lost, seen, none left": lambda story: story.settle(LOST),
    "settle lost, never seen": lambda story: story.settle(lost("no room", was_seen=False)),
    "settle twice": settle_twice,
    "owner lost": lose_owner,
    "settle by the old owner": settle_by_old_owner,
    "delete": lambda story: story.ledger.delete_job(story.new.uid),
}


def word_for(job: Job | None, now: float) -> str:
    if job is None:
        return "gone"
    if job.state is JobState.QUEUED and job.not_before is not None and job.not_before > now:
        return "backing off"
    return job.state.value


def test_every_row_of_the_table_is_an_event_and_every_event_has_a_row() -> None:
    assert list(dict.fromkeys(event for event, _, _ in read_table())) == list(EVENTS)


@pytest.mark.parametrize(("event", "state", "cell"), read_table())
async def test_the_event_makes_of_the_job_what_the_table_says(
    world: World, event: str, state: str, cell: str
) -> None:
    story = await build(world, state, retries=0 if event.endswith("none left") else 1)
    before = await world.ledger.get_job(story.new.uid)
    try:
        await EVENTS[event](story)
        got = None
    except RunyardError as error:
        got = type(error).__name__
    after = await world.ledger.get_job(story.new.uid)
    if cell == UNCHANGED:
        assert (got, after) == (None, before)
    elif got is not None:
        assert (got, after) == (cell, before)
    else:
        assert word_for(after, world.clock.now()) == cell
