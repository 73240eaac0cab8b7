"""A followed log neither loses nor doubles a byte, over any number of connections."""

import base64
import json

import pytest

from runyard.sdk import job_calls
from runyard.sdk.errors import ServerFault, Unreachable
from runyard.sdk.following import Interruption, LogChunk, LogEnd, LogGap, log_follower
from runyard.sdk.retrying import RetryPolicy

CALL = job_calls.follow_log("a", tenant=None, attempt=None, step=None)


def frame(cursor, event=None, **said):
    name = f"event: {event}\n" if event else ""
    return f"{name}id: {cursor}\ndata: {json.dumps(said)}\n\n".encode()


def chunk(cursor, offset, data, stream="stdout", attempt=1):
    return frame(
        cursor,
        attempt=attempt,
        step="run",
        stream=stream,
        offset=offset,
        data=base64.b64encode(data).decode(),
    )


def output_of(items, stream="stdout"):
    return b"".join(item.data for item in items if isinstance(item, LogChunk) and item.stream == stream)


def test_bytes_come_out_as_they_were_whatever_they_are():
    follower = log_follower(CALL)
    data = bytes(range(256))
    assert list(follower.feed(chunk("1", 0, data))) == [LogChunk(1, "run", "stdout", 0, data)]


def test_the_next_connection_goes_on_behind_the_last_whole_event():
    follower = log_follower(CALL)
    list(follower.feed(chunk("1", 0, b"ab") + chunk("2", 2, b"cd")[:-1]))
    assert follower.next_call().headers["Last-Event-ID"] == "1"
    assert output_of(follower.feed(chunk("2", 2, b"cd"))) == b"cd"


def test_the_first_connection_sends_no_cursor():
    assert "Last-Event-ID" not in log_follower(CALL).next_call().headers


def test_bytes_that_come_again_are_dropped():
    follower = log_follower(CALL)
    items = list(follower.feed(chunk("1", 0, b"abcd") + chunk("1", 0, b"abcd") + chunk("2", 2, b"cdef")))
    assert output_of(items) == b"abcdef"


def test_the_two_streams_are_counted_apart():
    follower = log_follower(CALL)
    items = list(follower.feed(chunk("1", 0, b"out") + chunk("2", 0, b"err", "stderr")))
    assert (output_of(items), output_of(items, "stderr")) == (b"out", b"err")


def test_the_next_attempt_begins_its_streams_anew():
    follower = log_follower(CALL)
    items = list(follower.feed(chunk("1", 0, b"first") + chunk("2", 0, b"second", attempt=2)))
    assert output_of(items) == b"firstsecond"


def test_missing_bytes_are_said_even_if_the_service_did_not():
    follower = log_follower(CALL)
    items = list(follower.feed(chunk("1", 0, b"ab") + chunk("2", 10, b"k")))
    assert items[1] == LogGap(1, "run", "stdout", 2, 10, False)


def test_a_cut_is_told_from_a_gap_and_comes_once():
    follower = log_follower(CALL)
    cut = frame("2", "cut", attempt=1, step="run", stream="stdout", offset=2, to=9)
    items = list(follower.feed(chunk("1", 0, b"ab") + cut + cut + chunk("3", 9, b"z")))
    assert [type(item) for item in items] == [LogChunk, LogGap, LogChunk]
    assert items[1].is_cut


def test_the_end_event_ends_it_and_carries_how():
    follower = log_follower(CALL)
    items = list(follower.feed(frame("9", "end", state="failed", exit_code=3) + chunk("10", 0, b"late")))
    assert items == [LogEnd(state="failed", exit_code=3)]
    assert follower.is_ended()


def test_events_of_a_later_service_are_passed_over():
    assert list(log_follower(CALL).feed(frame("1", "weather", sky="blue"))) == []


@pytest.mark.parametrize(
    "data", ["{", "[]", json.dumps({"step": "a", "stream": "stdout", "offset": 0, "data": "?"})]
)
def test_what_cannot_be_read_is_an_error_that_says_so(data):
    with pytest.raises(ServerFault, match="cannot read the stream"):
        list(log_follower(CALL).feed(f"data: {data}\n\n".encode()))


def test_patience_ends_with_a_cure_and_progress_renews_it():
    follower = log_follower(CALL, RetryPolicy(tries_max=3))
    assert isinstance(follower.interrupted("broken"), Interruption)
    follower.interrupted("broken")
    list(follower.feed(chunk("1", 0, b"a")))
    follower.interrupted("broken")
    follower.interrupted("broken")
    with pytest.raises(Unreachable, match="3 times in a row"):
        follower.interrupted("broken")
