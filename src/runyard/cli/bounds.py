"""Numbers as flags. Of bounds and weights, what is not named stays as it is, and `none` takes a bound away."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from runyard.cli.exit_codes import UsageError

NO_BOUND = "none"
NUMBER_MAX = 1_000_000_000
WEIGHT_MAX = 1_000_000

Limit: TypeAlias = Annotated[int, Parameter(validator=Number(gte=0, lte=NUMBER_MAX))]
AttemptNumber: TypeAlias = Annotated[int, Parameter(validator=Number(gte=1, lte=NUMBER_MAX))]
Weight: TypeAlias = Annotated[float, Parameter(validator=lambda kind, value: _check_weight(value))]


def changed_bounds(**flags: str | None) -> dict[str, int | None]:
    """The bounds that were given. Raises UsageError for what is neither a whole number nor `none`."""
    return {name: _bound(name, text) for name, text in flags.items() if text is not None}


def _bound(name: str, text: str) -> int | None:
    if text == NO_BOUND:
        return None
    try:
        bound = int(text)
    except ValueError:
        bound = -1
    if not 0 <= bound <= NUMBER_MAX:
        flag = "--" + name.replace("_", "-")
        raise UsageError(
            f"{flag} {text}: write a whole number from 0 to {NUMBER_MAX}, or {NO_BOUND} for no bound"
        )
    return bound


def _check_weight(value: float | None) -> None:
    """Also against `nan` and `inf`, which are floats too."""
    if value is not None and not 0 < value <= WEIGHT_MAX:
        raise ValueError(f"Must be a number above 0, at most {WEIGHT_MAX}.")


def merged(current: dict[str, Any], weight: float | None, bounds: dict[str, int | None]) -> dict[str, Any]:
    """The whole settings to PUT: what holds now, with the changes."""
    changes: dict[str, Any] = dict(bounds)
    if weight is not None:
        changes["weight"] = weight
    return {**current, **changes}
