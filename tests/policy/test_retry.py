"""What becomes of a job when an attempt ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.model.job import FINAL_STATES, JobState, Retry
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, lost, refused, succeeded
from runyard.model.verdict import Final, Requeue, RetryCost
from runyard.policy.retry import BACKOFF_MAX_S, UNSEEN_TRIES_MAX, backoff_s, decide
from tests.factories import a_job, a_spec

NOW = 1000.0
FAILED = Outcome(
    kind=OutcomeKind.FAILED, exit_code=3, reason=Reason(code=ReasonCode.EXIT, message="exit 3", step="test")
)


def test_a_success_is_final() -> None:
    assert decide(a_job(), succeeded(), NOW) == Final(state=JobState.SUCCEEDED)


def test_a_failure_is_final_unless_the_user_asked_for_retries() -> None:
    assert decide(a_job(), FAILED, NOW) == Final(state=JobState.FAILED, reason=FAILED.reason)


def test_a_failure_is_tried_again_as_often_as_asked() -> None:
    job = a_job(spec=a_spec(retry=Retry(failure=2)), failures=1)
    verdict = decide(job, FAILED, NOW)
    assert isinstance(verdict, Requeue)
    assert verdict.cost is RetryCost.FAILURE
    assert not verdict.keeps_place
    assert isinstance(decide(a_job(spec=a_spec(retry=Retry(failure=2)), failures=2), FAILED, NOW), Final)


def test_a_lost_attempt_that_was_seen_costs_an_infrastructure_retry() -> None:
    verdict = decide(a_job(), lost("host died", was_seen=True), NOW)
    assert isinstance(verdict, Requeue)
    assert verdict.cost is RetryCost.INFRASTRUCTURE


def test_a_job_without_infrastructure_retries_left_is_lost() -> None:
    verdict = decide(a_job(infrastructure_failures=3), lost("host died", was_seen=True), NOW)
    assert isinstance(verdict, Final)
    assert verdict.state is JobState.LOST


def test_an_attempt_never_seen_costs_no_retry_and_keeps_its_place() -> None:
    verdict = decide(a_job(infrastructure_failures=3), lost("no room", was_seen=False), NOW)
    assert isinstance(verdict, Requeue)
    assert verdict.cost is RetryCost.UNSEEN
    assert verdict.keeps_place


def test_unseen_tries_are_bounded_and_then_the_job_is_refused() -> None:
    verdict = decide(a_job(unseen_tries=UNSEEN_TRIES_MAX - 1), lost("no room", was_seen=False), NOW)
    assert isinstance(verdict, Final)
    assert verdict.state is JobState.REFUSED
    assert verdict.reason is not None
    assert "no room" in verdict.reason.message


@pytest.mark.parametrize("outcome", [FAILED, lost("gone", was_seen=True), lost("never", was_seen=False)])
def test_a_cancel_that_was_asked_for_forbids_retries(outcome: Outcome) -> None:
    job = a_job(spec=a_spec(retry=Retry(failure=5)), cancel_requested_at=999.0)
    assert isinstance(decide(job, outcome, NOW), Final)


def test_a_success_that_beat_the_cancel_stays_a_success() -> None:
    assert decide(a_job(cancel_requested_at=999.0), succeeded(), NOW) == Final(state=JobState.SUCCEEDED)


def test_a_place_lost_during_a_cancel_ends_as_canceled() -> None:
    verdict = decide(a_job(cancel_requested_at=999.0), lost("gone", was_seen=True), NOW)
    assert isinstance(verdict, Final)
    assert verdict.state is JobState.CANCELED


def test_a_refusal_is_final() -> None:
    verdict = decide(a_job(), refused(ReasonCode.ISOLATION, "no bwrap"), NOW)
    assert isinstance(verdict, Final)
    assert verdict.state is JobState.REFUSED


@given(
    kind=st.sampled_from(OutcomeKind),
    was_seen=st.booleans(),
    infrastructure=st.integers(0, 5),
    failures=st.integers(0, 5),
    unseen=st.integers(0, 20),
)
def test_every_outcome_has_a_verdict_that_ends_or_queues_again(
    kind: OutcomeKind, was_seen: bool, infrastructure: int, failures: int, unseen: int
) -> None:
    job = a_job(infrastructure_failures=infrastructure, failures=failures, unseen_tries=unseen)
    match decide(job, Outcome(kind=kind, was_seen=was_seen), NOW):
        case Final(state=state):
            assert state in FINAL_STATES
        case Requeue(not_before=not_before):
            assert not_before is not None
            assert NOW < not_before <= NOW + BACKOFF_MAX_S * 1.25


@given(name=st.text(max_size=20), tries=st.integers(0, 1000))
def test_the_backoff_grows_is_bounded_and_repeats_itself(name: str, tries: int) -> None:
    assert backoff_s(name, tries) == backoff_s(name, tries)
    assert 1.0 <= backoff_s(name, tries) <= BACKOFF_MAX_S * 1.25
