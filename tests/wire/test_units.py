"""Durations, sizes and cores as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.wire.units import DURATION_S_MAX, format_duration, parse_cpu, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("10m", 600), ("2d", 172_800), ("0.5s", 0.5), (30, 30), (1.5, 1.5)],
)
def test_a_duration_is_read_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "10", "10 m", "-5s", "1m1h", 0, -1, True, None, math.inf, math.nan, "9" * 50 + "s", "400d", []],
)
def test_what_is_no_duration_is_refused_with_the_value_and_the_cure(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(1, int(DURATION_S_MAX)))
def test_a_formatted_duration_reads_back(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("4Gi", 4 << 30), ("512Mi", 512 << 20), ("1k", 1000), ("2M", 2_000_000), (7, 7), ("1.5Gi", 3 << 29)],
)
def test_a_size_is_read_in_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "4gb", "-1", 0, 1.5, True, None, "1" * 60, 10**30, "1e9"])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "millis"), [(2, 2000), ("0.5", 500), ("500m", 500), (0.25, 250)])
def test_cpu_is_read_in_thousandths(text: object, millis: int) -> None:
    assert parse_cpu(text) == millis


@pytest.mark.parametrize("text", ["", "m", "many", 0, -1, "nan", "inf", True, None, 1e9])
def test_what_is_no_cpu_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="cpu"):
        parse_cpu(text)
