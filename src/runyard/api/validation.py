"""Says what is wrong with a document: the field, the value that stands there, the cure."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runyard.api.errors import InvalidDocument
from runyard.api.phrases import shortened, words_for
from runyard.model.errors import Invalid

M = TypeVar("M", bound=BaseModel)
PROBLEMS_MAX = 20


def validate(model: type[M], document: object) -> M:
    """The document as `model`, strictly: no number is read out of a text. Raises InvalidDocument with every problem."""
    try:
        return model.model_validate(document, strict=True)
    except ValidationError as error:
        problems = _problems(model, error, document)
    raise InvalidDocument(problems)


def _problems(model: type[BaseModel], error: ValidationError, document: object) -> list[Invalid]:
    """One per field: of a union's branches the first that the value was meant for speaks for all."""
    found = [(details, _problem(model, details, document)) for details in error.errors(include_url=False)]
    by_field: dict[str, Invalid] = {}
    for details, problem in found:
        if not _is_of_another_branch(details, problem, found):
            by_field.setdefault(problem.field or "", problem)
        if len(by_field) == PROBLEMS_MAX:
            break
    return list(by_field.values())


def _is_of_another_branch(
    details: ErrorDetails, problem: Invalid, found: Sequence[tuple[ErrorDetails, Invalid]]
) -> bool:
    """Whether it only says that the value is not of one branch's type, while another branch says more."""
    if not details["type"].endswith("_type"):
        return False
    field = problem.field or ""
    return any(
        (other.field or "").startswith(f"{field}.")
        or (other.field == problem.field and not each["type"].endswith("_type"))
        for each, other in found
    )


def _problem(model: type[BaseModel], details: ErrorDetails, document: object) -> Invalid:
    path = list(_path_in(document, details))
    field = ".".join(str(part) for part in path)
    if details["type"] == "extra_forbidden":
        return Invalid(f"{field}: there is no such key", field=field, cure=_similar_key(model, str(path[-1])))
    statement, cure = words_for(details)
    about = field or ("" if details["type"] == "value_error" else "the document")
    return Invalid(f"{about}: {statement}" if about else statement, field=field or None, cure=cure)


def _path_in(document: object, details: ErrorDetails) -> Iterator[str | int]:
    """The location without what pydantic adds: names of union branches and validators, `[key]`."""
    at: object = document
    location = details["loc"]
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        is_key = isinstance(at, Mapping) and part in at
        is_index = isinstance(at, list) and isinstance(part, int) and part < len(at)
        if is_key or is_index:
            at = at[part]  # type: ignore[index]
        elif not (is_last and details["type"] == "missing"):
            continue
        yield part if isinstance(part, int) else shortened(part, is_quoted=False)


def _similar_key(model: type[BaseModel], key: str) -> str:
    near = difflib.get_close_matches(key[:50], _known_keys(model), n=1)
    return f"did you mean {near[0]!r}?" if near else "remove it; docs/job-file.md lists the keys"


@functools.cache
def _known_keys(model: type[BaseModel]) -> tuple[str, ...]:
    schema = model.model_json_schema()
    places: list[dict[str, Any]] = [schema, *schema.get("$defs", {}).values()]
    return tuple(sorted({key for place in places for key in place.get("properties", {})}))
