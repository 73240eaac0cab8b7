"""A moment in a filter. Between programs it is RFC 3339; people also write how long ago, or a date in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from runyard.wire.units import parse_duration

TEXT_MAX = 40
RFC_3339 = "write it like 2026-11-24T10:00:00Z"
FOR_PEOPLE = "write how long ago, like 30m or 2d, or when, like 2026-11-24 10:00 (UTC)"
# The sign of an offset may be a space: what an address makes of a + that was not escaped.
_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(Z|[-+ ]\d\d:\d\d)", re.ASCII)


def parse_moment(text: str, *, now: float | None = None) -> float:
    """Seconds since the epoch of an RFC 3339 time. With `now` also `2h` before it, and ISO 8601 in UTC unless it says
    otherwise. Raises ValueError, `statement; cure`."""
    try:
        return _exact(text) if now is None else _as_people_write(text.strip(), now)
    except (ValueError, OverflowError):
        cure = RFC_3339 if now is None else FOR_PEOPLE
        raise ValueError(f"{text[:TEXT_MAX]!r} is no moment; {cure}") from None


def _exact(text: str) -> float:
    match = _RFC_3339.fullmatch(text.upper()) if len(text) <= TEXT_MAX else None
    if match is None:
        raise ValueError
    day, time, zone = match.groups()
    return datetime.fromisoformat(f"{day}T{time}{zone.replace(' ', '+')}").timestamp()


def _as_people_write(text: str, now: float) -> float:
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        return _exact(text)
    except ValueError:
        moment = datetime.fromisoformat(text[: TEXT_MAX + 1])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
