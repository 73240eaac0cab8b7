"""Moments as programs and as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.wire.moments import parse_moment

TEN = 1795514400.0
"""2026-11-24 10:00 UTC"""


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24T10:00:00Z",
        "2026-11-24t10:00:00z",
        "2026-11-24 10:00:00Z",
        "2026-11-24T10:00:00.000000000Z",
        "2026-11-24T11:00:00+01:00",
        "2026-11-24T11:00:00 01:00",
        "2026-11-24T04:30:00-05:30",
    ],
)
def test_a_time_of_rfc_3339_is_read_by_programs_and_people_alike(text: str) -> None:
    assert parse_moment(text) == TEN
    assert parse_moment(text, now=0.0) == TEN


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", TEN - 7200), (" 1d ", TEN - 86400), ("2026-11-24 10:00", TEN), ("2026-11-24", TEN - 36000)],
)
def test_people_also_write_how_long_ago_or_a_date_in_utc(text: str, seconds: float) -> None:
    assert parse_moment(text, now=TEN) == seconds
    with pytest.raises(ValueError, match="2026-11-24T10:00:00Z"):
        parse_moment(text)


@pytest.mark.parametrize(
    "text", ["", "soon", "-1h", "2026-11-24T10:00:00", "2026-13-01T00:00:00Z", "2026-11-24T10:00:61Z"]
)
def test_what_is_no_moment_is_said_with_the_cure(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment; write it like"):
        parse_moment(text)
    if text != "2026-11-24T10:00:00":
        with pytest.raises(ValueError, match="is no moment; write how long ago"):
            parse_moment(text, now=TEN)


@given(st.text(max_size=60), st.none() | st.just(TEN))
def test_any_text_is_a_moment_or_says_that_it_is_none(text: str, now: float | None) -> None:
    try:
        assert isinstance(parse_moment(text, now=now), float)
    except ValueError as error:
        assert "is no moment; " in str(error)  # noqa: PT017 - the words are what is promised
