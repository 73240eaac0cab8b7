"""A job as a user writes it: every wrong key or value is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from runyard.wire.job_document import JobDocument


def a_document(**changes: Any) -> dict[str, Any]:
    return {"steps": [{"run": "true"}], **changes}


def refused_at(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        JobDocument.model_validate(document)
    return [".".join(str(part) for part in problem["loc"]) for problem in caught.value.errors()]


def test_the_smallest_job_has_the_published_defaults() -> None:
    job = JobDocument.model_validate(a_document())
    assert (job.queue, job.tenant, job.priority, job.network) == ("default", "default", 0, "none")
    assert (job.requirements.cpu, job.requirements.memory, job.requirements.isolation) == (
        1000,
        1 << 30,
        "container",
    )
    assert (job.limits.queue, job.limits.start, job.limits.run) == (None, 600, 3600)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"stepz": []}, "stepz"),
        ({"steps": []}, "steps"),
        ({"steps": "true"}, "steps"),
        ({"steps": [{"run": "x", "command": ["x"]}]}, "steps.0"),
        ({"steps": [{}]}, "steps.0"),
        ({"steps": [{"run": "a\0b"}]}, "steps.0.run"),
        ({"steps": [{"run": "x", "timeout": "-1s"}]}, "steps.0.timeout"),
        ({"steps": [{"run": "x", "if": "maybe"}]}, "steps.0.if"),
        ({"priority": 101}, "priority"),
        ({"priority": 10**40}, "priority"),
        ({"id": "Not Valid"}, "id"),
        ({"id": "a" * 41}, "id"),
        ({"env": {"1A": "x"}}, "env.1A.[key]"),
        ({"requirements": {"cpu": -1}}, "requirements.cpu"),
        ({"requirements": {"memory": "lots"}}, "requirements.memory"),
        ({"requirements": {"isolation": "jail"}}, "requirements.isolation"),
        ({"limits": {"run": "0s"}}, "limits.run"),
        ({"limits": {"runn": "1s"}}, "limits.runn"),
        ({"retry": {"failure": -1}}, "retry.failure"),
        ({"artifacts": ["../secret"]}, "artifacts.0"),
        ({"artifacts": ["/etc/passwd"]}, "artifacts.0"),
        ({"outputs": {"a": "x/../../y"}}, "outputs.a"),
        ({"workspace": {"files": {"../x": "y"}}}, "workspace.files.../x.[key]"),
        ({"workspace": {"files": {"/etc/x": "y"}}}, "workspace.files./etc/x.[key]"),
    ],
)
def test_a_wrong_part_is_refused_where_it_is(change: dict[str, Any], place: str) -> None:
    assert place in refused_at(a_document(**change))


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two steps are named 'x'"):
        JobDocument.model_validate({"steps": [{"name": "x", "run": "a"}, {"name": "x", "run": "b"}]})


def test_a_lone_surrogate_is_refused() -> None:
    assert refused_at(a_document(env={"A": "\ud800"}))
