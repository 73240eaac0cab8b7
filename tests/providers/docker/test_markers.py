"""Telling our own words in a container's log from the job's, wherever the daemon cuts it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runyard.providers.docker.markers import (
    LINE_BYTES_MAX,
    Printed,
    Said,
    StreamSplitter,
    mend_line,
    parse_time,
    split_time,
)

MARK = "abc123"


def said(words: str) -> bytes:
    return f"\x1e{MARK} {words}\x1e\n".encode()


def read(data: bytes, cuts: list[int]) -> tuple[dict[int, bytes], list[str]]:
    splitter, printed, words = StreamSplitter(MARK), dict[int, bytes](), []
    points = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    items = [
        item for begin, end in itertools.pairwise(points) for item in splitter.feed(data[begin:end], 0.0)
    ]
    for item in [*items, *splitter.close()]:
        match item:
            case Printed(step, piece):
                printed[step] = printed.get(step, b"") + piece
            case Said(spoken, _):
                words.append(" ".join(spoken))
    return printed, words


job_bytes = st.lists(st.sampled_from([b"\x1e", b"\n", b"a", f"\x1e{MARK}".encode(), b"\xff"])).map(b"".join)


@given(first=job_bytes, second=job_bytes, cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_each_step_gets_its_bytes_wherever_the_stream_is_cut(
    first: bytes, second: bytes, cuts: list[int]
) -> None:
    data = said("begin 000") + first + said("end 000 0") + said("begin 001") + second + said("end 001 0")
    printed, words = read(data, cuts)
    assert printed == {step: text for step, text in ((0, first), (1, second)) if text}
    assert words == ["begin 000", "end 000 0", "begin 001", "end 001 0"]


def test_what_came_before_a_first_begin_belongs_to_nobody() -> None:
    splitter = StreamSplitter(MARK)
    assert list(splitter.feed(b"a complaint of busybox\n" + said("begin 001") + b"a", 0.0)) == [
        Said(("begin", "001"), 0.0),
        Printed(1, b"a"),
    ]


@given(cut=st.integers(0, 40))
def test_what_is_left_of_a_rotated_stream_belongs_to_the_step_that_ends_first(cut: int) -> None:
    data = b"0123456789\n" + said("end 001 0") + said("begin 002") + b"b"
    splitter = StreamSplitter(MARK, cut_bytes_max=4)
    items = [*splitter.feed(data[:cut], 0.0), *splitter.feed(data[cut:], 0.0)]
    assert items[0] == Printed(1, b"789\n", is_cut=True)
    assert items[-1] == Printed(2, b"b")


def test_a_marker_that_the_job_made_up_changes_nothing() -> None:
    splitter = StreamSplitter(MARK)
    data = said("begin 000") + said("begin x") + said("begin") + said("end x") + b"a"
    assert list(splitter.feed(data, 0.0))[-1] == Printed(0, b"a")


def test_the_beginning_of_a_marker_that_never_comes_is_printed_at_the_end() -> None:
    printed, _ = read(said("begin 000") + b"text\x1eabc", [])
    assert printed == {0: b"text\x1eabc"}


def test_a_long_line_gets_its_newline_back() -> None:
    full = b"x" * LINE_BYTES_MAX
    assert [mend_line(each) for each in (full, b"x", b"", b"y\n")] == [full, b"x\n", b"\n", b"y\n"]


def test_a_frame_s_time_is_read_to_the_microsecond_and_never_is_zero() -> None:
    assert split_time(b"2026-11-24T18:05:43.492513811Z text \n") == (1795543543.492513, b"text \n")
    assert parse_time("2026-11-24T18:05:43+00:00") == 1795543543.0
    assert parse_time("2026-11-24T19:05:43.5+01:00") == 1795543543.5
    assert parse_time("0001-01-01T00:00:00Z") == 0.0
