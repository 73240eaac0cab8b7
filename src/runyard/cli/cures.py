"""The API's cures in the words of the command line: it speaks HTTP, and whoever reads this types commands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol


class AnyProblem(Protocol):
    """What RunyardApiError, its `more`, and wire's ErrorBody have in common."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def field(self) -> str | None: ...
    @property
    def cure(self) -> str | None: ...
    @property
    def more(self) -> Sequence[AnyProblem]: ...


_MISSING_QUEUE = re.compile(r"there is no queue '([^']+)'")
_CURES: Mapping[tuple[str, str], str] = {
    ("ambiguous", "tenant"): "say which with --tenant",
    ("not_found", "attempt"): "leave --attempt out, or name one that `runyard job ID` shows",
    ("not_found", "path"): "`runyard artifacts ID` lists them",
    ("unauthenticated", "Authorization"): (
        "set RUNYARD_TOKEN to a token that holds; `runyard token create` makes one, on the service's host with its own"
    ),
}
"""By the error's code and field; what does not stand here is passed on as the API says it."""


def cure_in_words(problem: AnyProblem) -> str | None:
    """None where the API names no cure and none is known here."""
    queue = _MISSING_QUEUE.search(problem.message) if problem.field in ("queue", "name") else None
    if queue:
        return f"`runyard queue set {queue[1]}` makes it; `runyard queues` lists those that there are"
    known = _CURES.get((problem.code, problem.field or ""))
    if known:
        return known
    return problem.cure.replace("?tenant=", "--tenant").replace("?step=", "--step") if problem.cure else None
