"""Which queues stand still."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from runyard.model.queue import Queue, QueueSettings
from runyard.policy.progress import STALLED_AFTER_S, stalled_queues

NOW = 1_000_000.0
moments = st.floats(min_value=NOW - 1000, max_value=NOW + 10)


def a_queue(**changes: object) -> Queue:
    """One that stands still, unless something is changed."""
    values: dict[str, object] = {
        "settings": QueueSettings(name="default"),
        "queued": 3,
        "oldest_queued_at": NOW - 100,
        "last_claimed_at": NOW - 200,
        "has_eligible": True,
    }
    return Queue(**(values | changes))  # type: ignore[arg-type]


@st.composite
def queues(draw: st.DrawFn) -> Queue:
    settings = QueueSettings(
        name=draw(st.sampled_from("abc")),
        is_paused=draw(st.booleans()),
        running_max=draw(st.none() | st.integers(0, 3)),
    )
    return Queue(
        settings=settings,
        queued=draw(st.integers(0, 5)),
        starting=draw(st.integers(0, 3)),
        running=draw(st.integers(0, 3)),
        oldest_queued_at=draw(st.none() | moments),
        last_claimed_at=draw(st.none() | moments),
        has_eligible=draw(st.booleans()),
    )


def names(*found: Queue, now: float = NOW) -> list[str]:
    return [one.queue for one in stalled_queues(found, now)]


def test_a_queue_without_a_start_for_a_minute_stands_still_since_the_last_one() -> None:
    [stalled] = stalled_queues([a_queue(last_claimed_at=NOW - 70)], NOW)
    assert stalled.since == NOW - 70
    assert names(a_queue(last_claimed_at=NOW - 59)) == []


def test_a_queue_that_was_never_served_counts_from_its_oldest_job() -> None:
    [stalled] = stalled_queues([a_queue(last_claimed_at=None)], NOW)
    assert stalled.since == NOW - 100


def test_a_job_that_came_after_an_idle_hour_has_its_minute() -> None:
    assert names(a_queue(oldest_queued_at=NOW - 5, last_claimed_at=NOW - 3600)) == []


def test_what_an_operator_or_a_limit_holds_is_no_stall() -> None:
    assert names(a_queue(settings=QueueSettings(name="default", is_paused=True))) == []
    limited = QueueSettings(name="default", running_max=2)
    assert names(a_queue(settings=limited, starting=1, running=1)) == []
    assert names(a_queue(settings=limited, running=1)) == ["default"]
    assert names(a_queue(has_eligible=False)) == []


@given(queues())
def test_only_what_could_start_and_waited_its_minute_stands_still(queue: Queue) -> None:
    if names(queue):
        assert queue.has_eligible
        assert not queue.settings.is_paused
        assert queue.oldest_queued_at is not None
        assert queue.oldest_queued_at <= NOW - STALLED_AFTER_S
        assert queue.last_claimed_at is None or queue.last_claimed_at <= NOW - STALLED_AFTER_S


@given(queues(), moments)
def test_a_start_ends_a_stall_for_a_minute(queue: Queue, at: float) -> None:
    served = replace(queue, last_claimed_at=at)
    assert names(served, now=at + STALLED_AFTER_S - 0.001) == []


@given(queues(), st.floats(min_value=0, max_value=1000))
def test_a_stall_does_not_end_by_waiting(queue: Queue, more_s: float) -> None:
    if names(queue):
        assert names(queue, now=NOW + more_s)


@given(st.lists(queues(), max_size=4))
def test_each_queue_is_judged_for_itself(several: list[Queue]) -> None:
    assert names(*several) == [name for queue in several for name in names(queue)]
