"""Output is calm, and what users wrote cannot move the cursor."""

from datetime import UTC, datetime, timedelta

import pytest

from runyard.cli.words import age_of, print_table, printable, progress_words, size_of, span
from runyard.wire.answers import ProgressAnswer

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def test_columns_are_as_wide_as_they_need(capsys):
    print_table(("ID", "STATE"), [("a-long-id", "queued"), ("b", None)])
    assert capsys.readouterr().out == "ID         STATE\na-long-id  queued\nb          -\n"


def test_control_characters_are_shown_not_obeyed():
    assert printable("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb\\nc\\u202e"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0s"), (45.9, "45s"), (200, "3m20s"), (3600, "1h"), (3605, "1h"), (18120, "5h2m"), (356400, "4d3h")],
)
def test_spans_have_at_most_two_units(seconds, expected):
    assert span(seconds) == expected


def test_ages_look_both_ways():
    assert age_of(NOW - timedelta(minutes=3), NOW) == "3m ago"
    assert age_of(NOW + timedelta(seconds=20), NOW) == "in 20s"
    assert age_of(None) is None


@pytest.mark.parametrize(("size", "expected"), [(None, None), (1, "1"), (1536, "1.5Ki"), (1 << 30, "1Gi")])
def test_sizes_are_short(size, expected):
    assert size_of(size) == expected


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, "pulling debian:12"),
        ({"fraction": 0.4}, "pulling debian:12, 40%"),
        ({"done_bytes": 12 << 20, "total_bytes": 30 << 20}, "pulling debian:12, 12Mi of 30Mi"),
        ({"done_bytes": 5}, "pulling debian:12, 5"),
    ],
)
def test_progress_says_what_is_known_and_no_more(known, expected):
    assert progress_words(ProgressAnswer(text="pulling debian:12", at=NOW, **known)) == expected
