"""Server-sent events come whole, whatever pieces the network makes of them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from runyard.sdk.server_sent import EventParser, ServerSentEvent

STREAM = (
    b": hello\n\nid: 7\ndata: one\n\nevent: end\r\nid:8\r\ndata: two\r\ndata:  three\r\n\r\n"
    b"retry: 5\rdata: four\r\rdata\n\n: ping\n\nevent: lonely\n\ndata: \xc3\xa9\n\ndata: unfinished\n"
)
EVENTS = [
    ServerSentEvent("message", "one", "7"),
    ServerSentEvent("end", "two\n three", "8"),
    ServerSentEvent("message", "four", "8"),
    ServerSentEvent("message", "", "8"),
    ServerSentEvent("message", "é", "8"),
]


def parse(pieces):
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_a_whole_stream_gives_its_events_and_keeps_the_unfinished_one_back():
    assert parse([STREAM]) == EVENTS


def test_single_bytes_give_the_same_events():
    assert parse([STREAM[i : i + 1] for i in range(len(STREAM))]) == EVENTS


@given(st.sets(st.integers(0, len(STREAM))))
def test_any_cuts_give_the_same_events(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    assert parse([STREAM[a:b] for a, b in pairwise(edges)]) == EVENTS


def test_a_line_feed_after_a_torn_carriage_return_ends_no_second_line():
    assert parse([b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n"]) == [ServerSentEvent("message", "a\nb", "")]


def test_an_id_with_a_nul_is_passed_over_as_the_standard_has_it():
    assert parse([b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n"])[-1].id == "1"
