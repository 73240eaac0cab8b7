"""Exit codes are a published contract."""

import pytest

from runyard.cli.exit_codes import exit_code_of_error, exit_code_of_job
from runyard.sdk.errors import NotConfigured, Unreachable, error_of_answer


@pytest.mark.parametrize(
    ("state", "exit_code", "signal", "expected"),
    [
        ("succeeded", 0, None, 0),
        ("failed", 3, None, 3),
        ("failed", 255, None, 255),
        ("failed", None, 15, 143),
        ("failed", 137, 9, 137),
        ("failed", None, None, 125),
        ("timed_out", None, 9, 124),
        ("canceled", None, 15, 130),
        ("lost", None, None, 125),
        ("refused", None, None, 125),
    ],
)
def test_run_follows_docker_and_timeout(state, exit_code, signal, expected):
    assert exit_code_of_job(state, exit_code=exit_code, signal=signal) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, 4),
        (401, 4),
        (403, 4),
        (404, 1),
        (409, 4),
        (410, 1),
        (413, 4),
        (422, 4),
        (429, 4),
        (500, 1),
        (503, 3),
    ],
)
def test_other_commands_tell_refused_from_failed_and_unreachable(status, expected):
    assert exit_code_of_error(error_of_answer("x", status=status, body=b"")) == expected


def test_no_answer_and_no_service_are_unreachable_but_a_missing_token_is_refused():
    assert exit_code_of_error(Unreachable("x")) == 3
    assert exit_code_of_error(NotConfigured("x", code="no_service")) == 3
    assert exit_code_of_error(NotConfigured("x", code="no_token")) == 4
