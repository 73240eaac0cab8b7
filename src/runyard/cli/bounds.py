"""Bounds and weights as flags: what is not named stays as it is, `none` takes a bound away."""

from __future__ import annotations

from typing import Any

from runyard.cli.exit_codes import UsageError

NO_BOUND = "none"


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
    if bound < 0:
        flag = "--" + name.replace("_", "-")
        raise UsageError(f"{flag} {text}: write a whole number from 0, or {NO_BOUND} for no bound")
    return bound


def merged(current: dict[str, Any], weight: float | None, bounds: dict[str, int | None]) -> dict[str, Any]:
    """The whole settings to PUT: what holds now, with the changes."""
    changes: dict[str, Any] = dict(bounds)
    if weight is not None:
        changes["weight"] = weight
    return {**current, **changes}
