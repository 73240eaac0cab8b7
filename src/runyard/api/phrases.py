"""What is wrong with a value and what to write instead, in words of our own rather than the validator's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runyard.wire.job_document import SHAPES

_CURES = {
    "missing": "add it",
    "string_type": "write text; a number or yes/no as text needs quotes",
    "string_unicode": "write valid Unicode, without half a surrogate pair",
    "string_too_long": "write at most {max_length} characters",
    "string_too_short": "write at least {min_length} characters",
    "too_long": "give at most {max_length} of them",
    "too_short": "give at least {min_length} of them",
    "int_type": "write a whole number, without quotes",
    "int_from_float": "write a whole number",
    "int_parsing": "write a whole number",
    "int_parsing_size": "write a smaller whole number",
    "float_type": "write a number, without quotes",
    "float_parsing": "write a number",
    "finite_number": "write a finite number",
    "greater_than": "write a number above {gt}",
    "greater_than_equal": "write a number that is {ge} or more",
    "less_than": "write a number below {lt}",
    "less_than_equal": "write a number that is {le} or less",
    "bool_type": "write true or false, without quotes",
    "bool_parsing": "write true or false",
    "list_type": "write a list",
    "dict_type": "write a mapping of keys to values",
    "model_type": "write a mapping of keys to values",
    "model_attributes_type": "write a mapping of keys to values",
    "literal_error": "write one of {expected}",
}


def words_for(details: Mapping[str, Any]) -> tuple[str, str]:
    """(what is wrong, the cure) of one error as pydantic lists it. What a validator of ours raised is
    `statement; cure`."""
    kind, context = details["type"], details.get("ctx") or {}
    if kind == "missing":
        return "it is missing", _CURES[kind]
    if kind == "value_error":
        statement, separator, cure = str(context["error"]).rpartition("; ")
        return (statement, cure) if separator else (cure, "see docs/job-file.md for what may stand there")
    given = shortened(details["input"])
    if kind == "string_pattern_mismatch" and context["pattern"] in SHAPES:
        shape = SHAPES[context["pattern"]]
        return f"{given} is no {shape.noun}", shape.rule
    said = str(details["msg"])
    cure = _CURES[kind].format_map(context) if kind in _CURES else said[:1].lower() + said[1:]
    return f"{given} is not accepted", cure


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
