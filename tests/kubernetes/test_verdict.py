"""From what a cluster says of an attempt to its outcome: examples for people, properties for the space."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.model.job import JobSpec, Limits, Step, StepCondition
from runyard.model.outcome import Outcome, OutcomeKind
from runyard.providers.kubernetes.sighting import Ended, Running, Sighting, Waiting, read_sighting, seconds
from runyard.providers.kubernetes.verdict import Marks, judge, message_end, was_seen, why_waiting
from tests.kubernetes.documents import BEGAN, condition, ended, job, pod, running, waiting

NOW = (seconds(BEGAN) or 0) + 20.0
TWO = JobSpec(
    steps=(
        Step(name="build", command=("make",), image="builder:1"),
        Step(name="test", command=("pytest",), timeout_s=60.0),
    )
)


def verdict(job_document, pod_document, *, spec=TWO, now=NOW, **marks) -> Outcome | None:
    sighting = read_sighting(job_document, pod_document)
    marks = {"was_created": True, **marks}
    return judge(sighting, spec, marks=Marks(**marks), now=now, suspended_s=3600.0)


def told(outcome: Outcome | None) -> tuple[str, str | None, bool]:
    assert outcome is not None
    return outcome.kind.value, outcome.reason.code.value if outcome.reason else None, outcome.was_seen


def test_all_steps_that_ended_well_are_a_success():
    outcome = verdict(job(), pod(ended(0), ended(0)))
    assert outcome is not None
    assert (outcome.kind, outcome.exit_code, outcome.was_seen) == (OutcomeKind.SUCCEEDED, 0, True)
    assert outcome.usage.wall_s == 5.0


def test_the_outcome_needs_no_condition_of_the_job():
    assert verdict(job(active=1), pod(ended(0), ended(3), phase="Running")) is not None


@pytest.mark.parametrize(
    ("first", "kind", "code"),
    [
        (ended(7), "failed", "exit"),
        (ended(137), "failed", "signal"),
        (ended(137, reason="OOMKilled"), "failed", "memory"),
        (ended(124, "step_timeout"), "timed_out", "step_timeout"),
        (ended(124, "run_timeout"), "timed_out", "run_timeout"),
        (ended(124), "failed", "exit"),
        (ended(127, "not_found"), "failed", "command"),
        (ended(126, "not_executable"), "failed", "command"),
        (ended(126, "no_directory"), "failed", "command"),
        (ended(127), "failed", "exit"),
    ],
)
def test_the_first_step_that_failed_decides(first, kind, code):
    outcome = verdict(job(), pod(first, ended(0, "skipped")))
    assert told(outcome) == (kind, code, True)
    assert outcome is not None
    assert outcome.reason is not None
    assert outcome.reason.step == "build"


def test_a_step_cannot_lie_about_its_end():
    """It wrote into the message and then took step.sh down with it, by its memory."""
    forged = ended(137, reason="OOMKilled", message='{"end":"skipped"}')
    assert told(verdict(job(), pod(forged, ended(0, "skipped")))) == ("failed", "memory", True)
    assert told(verdict(job(), pod(ended(9, "step_timeout"), ended(0, "skipped")))) == (
        "failed",
        "exit",
        True,
    )


def test_a_step_that_was_skipped_without_a_reason_is_no_success():
    outcome = verdict(job(), pod(ended(0), ended(0, "skipped")))
    assert told(outcome) == ("failed", "internal", True)


def test_an_oom_of_a_child_that_the_step_survived_is_no_failure():
    assert told(verdict(job(), pod(ended(0, reason="OOMKilled"), ended(0))))[0] == "succeeded"


def test_a_running_step_is_no_outcome():
    assert verdict(job(), pod(ended(0), running())) is None
    assert verdict(job(), pod(running(), running())) is None


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (
            {"conditions": [condition("DisruptionTarget", "PreemptionByScheduler", "preempted")]},
            "higher priority",
        ),
        ({"conditions": [condition("DisruptionTarget", "DeletionByPodGC", "no node")]}, "node is gone"),
        ({"conditions": [condition("DisruptionTarget", "EvictionByEvictionAPI", "drain")]}, "drained"),
        ({"reason": "NodeLost", "message": "node went away"}, "node is gone"),
        ({"reason": "Evicted", "message": "The node was low on resource: memory."}, "evicted"),
        (
            {
                "reason": "Evicted",
                "message": "Container step-000 was using more, which exceeds its request; a limit",
                "conditions": [condition("DisruptionTarget", "TerminationByKubelet")],
            },
            "the node ended the pod",
        ),
    ],
)
def test_what_the_cluster_does_to_a_pod_is_an_infrastructure_retry(status, word):
    outcome = verdict(job(), pod(ended(143, "stopped"), ended(143, "unstarted"), phase="Failed", **status))
    assert told(outcome) == ("lost", "host_lost", True)
    assert word in outcome.reason.message


def test_an_eviction_for_the_jobs_own_disk_is_its_failure():
    message = 'Usage of EmptyDir volume "files" exceeds the limit "1Gi". '
    outcome = verdict(
        job(), pod(ended(137), ended(143, "unstarted"), phase="Failed", reason="Evicted", message=message)
    )
    assert told(outcome) == ("failed", "disk", True)
    assert 'volume "files" exceeds the limit' in outcome.reason.message


def test_a_stop_is_canceled_once_nothing_runs():
    state = pod(ended(143, "stopped"), ended(143, "unstarted"), is_deleted=True)
    assert told(verdict(job(), state, is_stopped=True)) == ("canceled", "canceled", True)
    assert verdict(job(), pod(running(), running(), is_deleted=True), is_stopped=True) is None


def test_a_stop_before_the_start_was_never_seen():
    assert told(verdict(None, None, is_stopped=True, was_created=False)) == ("canceled", "canceled", False)


def test_a_success_that_came_before_the_stop_stays_one():
    assert told(verdict(job(), pod(ended(0), ended(0)), is_stopped=True))[0] == "succeeded"


def test_a_job_that_somebody_deleted_is_lost_and_only_if_it_was_there():
    assert told(verdict(None, None, was_seen=True)) == ("lost", "host_lost", True)
    assert told(verdict(None, None)) == ("lost", "host_lost", False)
    assert verdict(None, None, was_created=False) is None


def test_suspended_before_the_start_is_waiting_and_the_start_clock_stands():
    late = NOW + 3000
    assert verdict(job(suspend=True), None, now=late) is None
    assert told(verdict(job(suspend=True), None, now=NOW + 3600)) == ("timed_out", "start_timeout", False)
    resumed = job(startTime="2026-11-24T12:50:00Z")
    assert verdict(resumed, pod(waiting(), waiting(), prepare=running()), now=late) is None


def test_suspended_while_it_ran_is_an_infrastructure_retry():
    assert told(verdict(job(suspend=True), None, was_seen=True)) == ("lost", "host_lost", True)


def test_an_image_that_cannot_be_pulled_ends_with_the_clusters_own_words():
    state = pod(waiting("ImagePullBackOff", 'Back-off pulling image "builder:1"'), running())
    assert verdict(job(), state) is None
    outcome = verdict(job(), state, now=NOW + 600)
    assert told(outcome) == ("timed_out", "start_timeout", False)
    assert outcome.reason.message == (
        "the first step did not start within limits.start = 600 s: step 'build' (builder:1): ImagePullBackOff: "
        'Back-off pulling image "builder:1"'
    )


def test_an_image_that_has_no_valid_name_is_not_waited_for():
    outcome = verdict(job(), pod(waiting("InvalidImageName", 'couldn\'t parse image "A"'), running()))
    assert told(outcome) == ("failed", "image", False)


def test_a_pod_that_fits_nowhere_ends_with_the_schedulers_words():
    words = "0/3 nodes are available: 3 Insufficient cpu."
    state = pod(waiting(""), waiting(""), prepare=waiting(""), phase="Pending")
    del state["spec"]["nodeName"]
    state["status"]["conditions"] = [condition("PodScheduled", "Unschedulable", words, status="False")]
    assert why_waiting(read_sighting(job(), state), TWO) == f"not scheduled: {words}"
    outcome = verdict(job(), state, now=NOW + 600)
    assert told(outcome) == ("timed_out", "start_timeout", False)
    assert outcome.reason.message.endswith(words)


def test_a_workspace_that_cannot_be_made_is_the_jobs_failure():
    state = pod(
        waiting(), waiting(), phase="Failed",
        prepare=ended(1, message='{"end": "workspace", "words": "workspace.git: no such ref"}'),
    )  # fmt: skip
    outcome = verdict(job(), state)
    assert told(outcome) == ("failed", "workspace", False)
    assert outcome.reason.message == "workspace.git: no such ref"


def test_the_jobs_deadline_is_a_time_out():
    failed = job(conditions=[condition("Failed", "DeadlineExceeded", "Job was active longer")])
    assert told(verdict(failed, None, was_seen=True)) == ("timed_out", "run_timeout", True)


def test_a_pod_that_the_kubelet_would_not_take_is_lost_unseen():
    state = pod(
        waiting(""), waiting(""), prepare=waiting(""), phase="Failed", reason="OutOfcpu", message="no cpu"
    )
    assert told(verdict(job(), state)) == ("lost", "host_lost", False)


def test_a_step_that_got_rid_of_its_clock_is_ended_from_here():
    spec = replace(TWO, limits=Limits(run_s=100.0))
    assert verdict(job(), pod(running(), running()), spec=spec, now=NOW + 130) is None
    outcome = verdict(job(), pod(running(), running()), spec=spec, now=NOW + 200)
    assert told(outcome) == ("timed_out", "run_timeout", True)


def test_a_message_that_the_kubelet_cut_short_still_tells_its_word():
    assert message_end('{"end":"workspace","wor')["end"] == "workspace"
    assert message_end("words of the image's own") == {}
    assert message_end("[1]") == {}


ends = st.sampled_from(
    ["", "exit", "skipped", "unstarted", "stopped", "step_timeout", "run_timeout", "not_found", "nonsense"]
)
states = st.one_of(
    st.builds(
        Waiting, reason=st.sampled_from(["", "PodInitializing", "ImagePullBackOff", "InvalidImageName"])
    ),
    st.builds(Running, since=st.floats(0, 1000)),
    st.builds(
        Ended,
        exit_code=st.sampled_from([0, 1, 124, 126, 127, 137, 143, 255]),
        reason=st.sampled_from(["", "Error", "Completed", "OOMKilled"]),
        message=ends.map(lambda end: f'{{"end":"{end}"}}'),
        began_at=st.none() | st.floats(0, 1000),
        at=st.none() | st.floats(0, 1000),
    ),
)
pairs = st.none() | st.tuples(st.sampled_from(["DeadlineExceeded", "Evicted", "X"]), st.just("words"))
sightings = st.builds(
    Sighting,
    has_job=st.booleans(),
    has_pod=st.booleans(),
    is_suspended=st.booleans(),
    created_at=st.none() | st.floats(0, 1000),
    start_clock=st.none() | st.floats(0, 1000),
    job_failure=pairs,
    pod_phase=st.sampled_from(["", "Pending", "Running", "Failed", "Succeeded"]),
    pod_reason=st.sampled_from(["", "Evicted", "NodeLost"]),
    pod_message=st.sampled_from(["", "exceeds the limit"]),
    disruption=pairs,
    is_deleted=st.booleans(),
    prepare=states,
    steps=st.lists(states, max_size=3).map(tuple),
    collect=st.none() | states,
)
specs = st.lists(st.sampled_from(list(StepCondition)), min_size=1, max_size=3).map(
    lambda conditions: JobSpec(
        steps=tuple(
            Step(name=f"s{index}", command=("x",), condition=each, timeout_s=5.0)
            for index, each in enumerate(conditions)
        )
    )
)
all_marks = st.builds(Marks, is_stopped=st.booleans(), was_created=st.booleans(), was_seen=st.booleans())


@given(sightings, specs, all_marks, st.floats(0, 1e6))
def test_every_sighting_gives_none_or_one_outcome_that_can_be_told(sighting, spec, marks, now):
    outcome = judge(sighting, spec, marks=marks, now=now, suspended_s=100.0)
    why_waiting(sighting, spec)
    if outcome is None:
        return
    assert (outcome.reason is None) == (outcome.kind is OutcomeKind.SUCCEEDED)
    assert outcome.usage.wall_s >= 0
    if outcome.kind is OutcomeKind.SUCCEEDED:
        assert sighting.have_steps_ended
        assert all(isinstance(each, Ended) and each.exit_code == 0 for each in sighting.steps)
    if not marks.was_seen and not sighting.steps:
        assert not outcome.was_seen  # it would cost the user a retry


@given(sightings, all_marks)
def test_only_what_ran_was_seen(sighting, marks):
    ran = any(not isinstance(each, Waiting) for each in sighting.steps)
    assert not was_seen(sighting, marks=marks) or marks.was_seen or ran


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.dictionaries(
    st.sampled_from(["metadata", "spec", "status", "suspend"]), inner | st.none()), max_leaves=5))  # fmt: skip
def test_documents_with_parts_missing_are_read(document):
    for each in ("metadata", "spec", "status"):
        read_sighting({each: None}, {each: {}})
