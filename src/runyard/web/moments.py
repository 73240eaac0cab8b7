"""A moment as people write it into an address: how long ago (`2h`), or when (`2026-11-24 10:00`, in UTC)."""

from __future__ import annotations

from datetime import UTC, datetime

from runyard.model.errors import Invalid
from runyard.wire.units import parse_duration


def moment_of(text: str, *, field: str, now: float) -> float | None:
    """Seconds since the epoch; None for nothing written. Raises Invalid."""
    text = text.strip()[:80]
    if not text:
        return None
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Invalid(
            f"{field}: {text!r} is no moment",
            field=field,
            cure="write how long ago, like 30m or 2d, or when, like 2026-11-24 10:00 (UTC)",
        ) from None
