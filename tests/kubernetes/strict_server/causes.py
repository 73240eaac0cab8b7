"""The causes of a 422, each with the server's words for its kind."""

import json
from collections.abc import Iterable
from typing import NamedTuple


class Cause(NamedTuple):
    """One line of a 422. `reason` is of metav1.CauseType, e.g. FieldValueInvalid."""

    field: str
    reason: str
    message: str


def wrong(field: str, value: object, why: str) -> Cause:
    shown = json.dumps(value, separators=(",", ":"))
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {why}")


def required(field: str, why: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", f"Required value: {why}" if why else "Required value")


def unsupported(field: str, value: object, supported: Iterable[str]) -> Cause:
    listed = ", ".join(f'"{each}"' for each in supported)
    return Cause(field, "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {listed}')


def duplicate(field: str, value: str) -> Cause:
    return Cause(field, "FieldValueDuplicate", f'Duplicate value: "{value}"')


def too_long(field: str, bytes_max: int) -> Cause:
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {bytes_max} bytes")


def forbidden_field(field: str, why: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {why}")
