"""From what is known of an attempt to its outcome."""

from __future__ import annotations

import pytest

from runyard.model.job import JobSpec, Limits, Step, StepCondition
from runyard.model.outcome import OutcomeKind, ReasonCode
from runyard.providers.docker.plan import Group, group_steps
from runyard.providers.docker.service_verdict import is_to_blame
from runyard.providers.docker.verdict import ContainerEnd, StepEnd, Story, judge

ONE = JobSpec(steps=(Step(name="main", command=("true",)),), limits=Limits(run_s=60))
GROUP = [Group(first=0, last=0, image="i")]


def ended(code: int = 0, why: str = "-", **more: int) -> StepEnd:
    fields = {"oom_kills": 0, "pids_refused": 0, **more}
    return StepEnd(code=code, wall_s=1.0, cpu_s=0.5, memory_bytes=7, why=why, **fields)


def story(end: StepEnd | None, container: ContainerEnd | None, **more: bool) -> Story:
    known = Story(begun={0: 100.0}, containers={0: container}, **more)
    if end is not None:
        known.ended, known.ended_at = {0: end}, {0: 101.5}
    return known


@pytest.mark.parametrize(
    ("end", "container", "kind", "code"),
    [
        (ended(), ContainerEnd(exit_code=0, ended_at=102), OutcomeKind.SUCCEEDED, None),
        (ended(3), ContainerEnd(exit_code=3, ended_at=102), OutcomeKind.FAILED, ReasonCode.EXIT),
        (ended(139), ContainerEnd(exit_code=139, ended_at=102), OutcomeKind.FAILED, ReasonCode.SIGNAL),
        (ended(137, oom_kills=1), None, OutcomeKind.FAILED, ReasonCode.MEMORY),
        (ended(143, "stop"), None, OutcomeKind.CANCELED, ReasonCode.CANCELED),
        (ended(143, "run_timeout"), None, OutcomeKind.TIMED_OUT, ReasonCode.RUN_TIMEOUT),
        (None, ContainerEnd(exit_code=137, ended_at=102), OutcomeKind.LOST, ReasonCode.HOST_LOST),
        (None, ContainerEnd(exit_code=137, is_oom=True, ended_at=102), OutcomeKind.FAILED, ReasonCode.MEMORY),
        (None, ContainerEnd(exit_code=137, ended_at=161), OutcomeKind.TIMED_OUT, ReasonCode.RUN_TIMEOUT),
        (None, None, OutcomeKind.LOST, ReasonCode.HOST_LOST),
        (ended(), None, OutcomeKind.SUCCEEDED, None),
    ],
)
def test_each_end_has_its_word(
    end: StepEnd | None, container: ContainerEnd | None, kind: OutcomeKind, code: ReasonCode | None
) -> None:
    outcome = judge(ONE, GROUP, story(end, container), pids_max=10)
    assert (outcome.kind, outcome.reason and outcome.reason.code) == (kind, code)


def test_what_was_killed_after_a_stop_was_canceled() -> None:
    known = story(None, ContainerEnd(exit_code=137, ended_at=102), is_stopped=True)
    assert judge(ONE, GROUP, known, pids_max=10).kind is OutcomeKind.CANCELED


def test_a_stop_after_the_end_changes_nothing() -> None:
    known = story(ended(3), ContainerEnd(exit_code=3, ended_at=102), is_stopped=True)
    assert judge(ONE, GROUP, known, pids_max=10).kind is OutcomeKind.FAILED


def test_a_container_that_died_between_two_steps_is_lost() -> None:
    spec = JobSpec(steps=(Step(name="a", command=("x",)), Step(name="b", command=("y",))))
    known = story(ended(), ContainerEnd(exit_code=137, ended_at=102))
    assert judge(spec, [Group(first=0, last=1, image="i")], known, pids_max=1).kind is OutcomeKind.LOST


def test_the_first_failure_decides_and_usage_counts_each_container_once() -> None:
    spec = JobSpec(
        steps=(
            Step(name="a", command=("x",)),
            Step(name="b", command=("y",), condition=StepCondition.ALWAYS, image="other"),
        )
    )
    known = Story(
        begun={0: 100.0, 1: 102.0},
        ended={0: ended(4), 1: ended(5)},
        ended_at={0: 101.0, 1: 104.0},
        containers={0: ContainerEnd(exit_code=4, ended_at=101), 1: ContainerEnd(exit_code=5, ended_at=104)},
    )
    outcome = judge(spec, group_steps(spec, "i"), known, pids_max=1)
    assert (outcome.exit_code, outcome.usage.wall_s, outcome.usage.cpu_s) == (4, 4.0, 1.0)


def test_steps_in_one_image_are_one_group() -> None:
    images = ("a", "a", None, "b", "a")
    spec = JobSpec(
        steps=tuple(Step(name=str(n), command=("x",), image=image) for n, image in enumerate(images))
    )
    groups = [(group.first, group.last, group.image) for group in group_steps(spec, "a")]
    assert groups == [(0, 2, "a"), (3, 3, "b"), (4, 4, "a")]


TWO = JobSpec(
    steps=(Step(name="a", command=("x",)), Step(name="b", command=("y",), image="other")),
    limits=Limits(run_s=60),
)


def between_two() -> Story:
    """The first has ended well, the second never began although its container did."""
    known = story(ended(), ContainerEnd(exit_code=0, ended_at=102))
    known.containers[1] = ContainerEnd(exit_code=0, ended_at=103)
    return known


def test_a_stop_between_two_containers_is_no_success() -> None:
    known = between_two()
    known.is_stopped = True
    assert judge(TWO, group_steps(TWO, "i"), known, pids_max=10).kind is OutcomeKind.CANCELED


def blamed(
    known: Story, ended_at: float | None, *, is_marked: bool = False, stopped_at: float | None = None
) -> bool:
    outcome = judge(TWO, group_steps(TWO, "i"), known, pids_max=10)
    return is_to_blame(TWO, outcome, known, ended_at=ended_at, is_marked=is_marked, stopped_at=stopped_at)


def test_a_service_is_to_blame_only_if_it_ended_before_the_steps() -> None:
    good = between_two()
    good.begun[1], good.ended[1], good.ended_at[1] = 102.0, ended(), 103.0
    assert [blamed(good, at) for at in (102.5, 103.5, None)] == [True, False, False]
    failed = between_two()
    failed.ended[0] = ended(3)
    failed.containers[0] = ContainerEnd(exit_code=3, ended_at=102)
    assert [blamed(failed, at) for at in (101.0, 102.5)] == [True, False]  # the first failure decides


def test_a_service_for_which_the_steps_were_stopped_between_two_is_to_blame() -> None:
    assert blamed(between_two(), 102.5, is_marked=True)


def test_where_all_ended_with_their_daemon_no_service_is_to_blame_unless_it_was_seen() -> None:
    dead = story(None, ContainerEnd(exit_code=137, ended_at=102))
    assert [blamed(dead, 100.5, is_marked=seen) for seen in (False, True)] == [False, True]


def test_who_asked_for_a_stop_before_a_service_ended_gets_it() -> None:
    stopped = story(ended(143, "stop"), ContainerEnd(exit_code=143, ended_at=102))
    assert [blamed(stopped, at, stopped_at=101.0) for at in (100.5, 101.5, None)] == [True, False, False]
    assert blamed(stopped, 100.5)
