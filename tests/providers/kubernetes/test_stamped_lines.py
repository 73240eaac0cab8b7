"""A log with times before its lines comes out as the job's own bytes, once each, wherever the stream was cut."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from runyard.providers.kubernetes.stamped_lines import Piece, StampedLines

SECOND = 1_000_000_000
BEGAN_NS = 1_790_000_000 * SECOND


def stamp(at_ns: int) -> bytes:
    seconds, nanoseconds = divmod(at_ns, SECOND)
    minutes, seconds = divmod(seconds, 60)
    return b"2026-11-24T10:%02d:%02d.%09dZ" % (minutes % 60, seconds, nanoseconds)


def kubelet(lines: Iterable[tuple[int, bytes]], since: str | None = None) -> bytes:
    """What the kubelet serves of these lines, from the whole second of `since` on."""
    return b"".join(
        stamp(at) + b" " + text
        for at, text in lines
        if since is None or stamp(at)[:19] >= since[:19].encode()
    )


def kept(pieces: Iterable[Piece]) -> bytes:
    """As a log keeps them: by offset, gaps as zeros. Bytes are never written twice."""
    log = b""
    for piece in pieces:
        assert piece.offset >= len(log), "bytes that were kept come again"
        log = log.ljust(piece.offset, b"\0") + piece.data
    return log


LINES = st.lists(
    st.tuples(
        st.integers(0, 3 * SECOND), st.binary(max_size=12).map(lambda text: text.replace(b"\n", b"") + b"\n")
    ),
    max_size=12,
).map(lambda lines: sorted(lines, key=lambda line: line[0]))


@given(LINES, st.data())
def test_every_byte_comes_once_however_often_the_stream_is_dropped(
    lines: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    parser, pieces = StampedLines(), []
    for _ in range(data.draw(st.integers(0, 3))):
        parser.begin_stream()
        served = kubelet(lines, parser.since)
        cut = data.draw(st.integers(0, len(served)))
        middle = data.draw(st.integers(0, cut))
        for chunk in (served[:middle], served[middle:cut]):
            pieces += parser.feed(chunk)
    parser.begin_stream()
    pieces += parser.feed(kubelet(lines, parser.since))
    assert kept(pieces) == b"".join(text for _, text in lines)


def test_a_last_line_without_its_end_is_kept() -> None:
    parser = StampedLines()
    parser.begin_stream()
    assert kept(parser.feed(stamp(5) + b" prompt> ")) == b"prompt> "


def test_a_time_of_another_zone_is_asked_for_in_that_zone() -> None:
    parser = StampedLines()
    parser.begin_stream()
    list(parser.feed(b"2026-11-24T10:00:00.5+02:00 here\n"))
    assert parser.since == "2026-11-24T10:00:00+02:00"


def test_a_rotated_log_goes_on_behind_a_gap() -> None:
    parser = StampedLines()
    parser.begin_stream()
    pieces = list(parser.feed(kubelet([(0, b"one\n"), (1, b"two\n")])))
    parser.begin_stream()
    pieces += parser.feed(kubelet([(1, b"two\n"), (9 * SECOND, b"nine\n")]))
    assert kept(pieces) == b"one\ntwo\n\0nine\n"
    parser.begin_stream()
    pieces += parser.feed(kubelet([(9 * SECOND, b"nine\n"), (10 * SECOND, b"ten\n")], parser.since))
    assert kept(pieces) == b"one\ntwo\n\0nine\nten\n"


def test_a_clock_that_was_set_back_loses_nothing() -> None:
    lines = [(5 * SECOND, b"five\n"), (2 * SECOND, b"two\n"), (3 * SECOND, b"three\n")]
    parser = StampedLines()
    parser.begin_stream()
    pieces = list(parser.feed(kubelet(lines[:2])))
    parser.begin_stream()
    pieces += parser.feed(kubelet(lines, parser.since))
    assert kept(pieces) == b"five\ntwo\nthree\n"


def test_what_the_kubelet_says_instead_of_a_log_is_no_line_of_the_job() -> None:
    parser = StampedLines()
    parser.begin_stream()
    words = b"unable to retrieve container logs for containerd://0123456789abcdef"
    assert kept(parser.feed(words)) == b""
    assert "unable to retrieve" in parser.foreign
