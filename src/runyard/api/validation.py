"""Says what is wrong with a document: the field, the value that stands there, the cure."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runyard.api.errors import InvalidDocument
from runyard.model.errors import Invalid

M = TypeVar("M", bound=BaseModel)
PROBLEMS_MAX = 20
_CURES = {
    "missing": "add it",
    "string_type": "write text; a number or yes/no as text needs quotes",
    "string_unicode": "write valid Unicode, without half a surrogate pair",
    "int_type": "write a whole number, without quotes",
    "int_from_float": "write a whole number",
    "float_type": "write a number, without quotes",
    "bool_type": "write true or false, without quotes",
    "list_type": "write a list",
    "dict_type": "write a mapping of keys to values",
    "model_type": "write a mapping of keys to values",
}


def validate(model: type[M], document: object) -> M:
    """The document as `model`, strictly: no number is read out of a text. Raises InvalidDocument with every problem."""
    try:
        return model.model_validate(document, strict=True)
    except ValidationError as error:
        problems = _problems(model, error, document)
    raise InvalidDocument(problems)


def _problems(model: type[BaseModel], error: ValidationError, document: object) -> list[Invalid]:
    """One per field: of a union's branches the first that complained speaks for all."""
    by_field: dict[str, Invalid] = {}
    for details in error.errors(include_url=False):
        problem = _problem(model, details, document)
        by_field.setdefault(problem.field or "", problem)
        if len(by_field) == PROBLEMS_MAX:
            break
    return list(by_field.values())


def _problem(model: type[BaseModel], details: ErrorDetails, document: object) -> Invalid:
    path = list(_path_in(document, details))
    field = ".".join(str(part) for part in path)
    kind, given = details["type"], details["input"]
    if kind == "extra_forbidden":
        return Invalid(f"{field}: there is no such key", field=field, cure=_similar_key(model, str(path[-1])))
    if kind == "missing":
        return Invalid(f"{field}: it is missing", field=field, cure=_CURES[kind])
    if kind == "value_error":
        statement, _, cure = str(details["ctx"]["error"]).partition("; ")
        message = f"{field}: {statement}" if field else statement
        return Invalid(message, field=field or None, cure=cure or statement)
    message = f"{field or 'the document'}: {shortened(given)} is not accepted"
    return Invalid(message, field=field or None, cure=_CURES.get(kind) or _cure_of(details))


def _cure_of(details: ErrorDetails) -> str:
    context, said = details.get("ctx", {}), details["msg"]
    match details["type"]:
        case "literal_error":
            return f"write one of {context['expected']}"
        case "string_pattern_mismatch":
            return f"write it like {context['pattern']}"
        case _:
            return said[:1].lower() + said[1:]


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


def shortened(value: object, *, is_quoted: bool = True) -> str:
    """The value for a message: at most some 100 characters, and always printable."""
    if isinstance(value, str):
        text = repr(value[:101])
        text = text if is_quoted else text[1:-1]
    elif isinstance(value, Mapping | list):
        text = f"a {'mapping' if isinstance(value, Mapping) else 'list'} of {len(value)}"
    else:
        text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _similar_key(model: type[BaseModel], key: str) -> str:
    near = difflib.get_close_matches(key[:50], _known_keys(model), n=1)
    return f"did you mean {near[0]!r}?" if near else "remove it; docs/job-file.md lists the keys"


@functools.cache
def _known_keys(model: type[BaseModel]) -> tuple[str, ...]:
    schema = model.model_json_schema()
    places: list[dict[str, Any]] = [schema, *schema.get("$defs", {}).values()]
    return tuple(sorted({key for place in places for key in place.get("properties", {})}))
