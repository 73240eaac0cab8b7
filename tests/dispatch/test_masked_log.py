"""The log of a far place that has secrets: masked in place, repeatable, continued by whoever adopts."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.dispatch.masked_log import IDLE_S, MaskedLog
from runyard.logs.masking import Masks
from runyard.model.errors import Unreachable
from runyard.testing.memory_context import MemoryLog

VALUE = b"correct-horse-battery"
STARS = b"*" * len(VALUE)


class Flaky(MemoryLog):
    """A store that fails the next calls."""

    failures = 0

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise Unreachable("the disk is full")
        await super().append(step, stream, offset, data)


class Telling(MemoryLog):
    """Says when something came."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        await super().append(step, stream, offset, data)
        self.came.set()


def a_log(sink: MemoryLog, value: bytes = VALUE) -> MaskedLog:
    return MaskedLog(sink, Masks([value]))


async def test_a_secret_that_comes_in_two_pieces_is_masked_with_a_star_for_each_byte() -> None:
    sink = MemoryLog()
    log = a_log(sink)
    await log.append("000", "stdout", 0, b"it is " + VALUE[:9])
    assert sink.streams["000", "stdout"] == b"it is "
    await log.append("000", "stdout", 15, VALUE[9:] + b"!\n")
    await log.finish()
    assert sink.streams["000", "stdout"] == b"it is " + STARS + b"!\n"


async def test_a_repeated_piece_changes_nothing() -> None:
    sink = MemoryLog()
    log = a_log(sink)
    for _ in range(2):
        await log.append("000", "stdout", 0, b"it is " + VALUE[:9])
    for _ in range(2):
        await log.append("000", "stdout", 6, VALUE)
    await log.finish()
    assert sink.streams["000", "stdout"] == b"it is " + STARS


async def test_who_adopts_goes_on_at_the_stored_size_and_the_secret_is_masked() -> None:
    sink = MemoryLog()
    await a_log(sink).append("000", "stdout", 0, b"it is " + VALUE[:9])  # and its owner is killed
    adopting = a_log(sink)
    size = await adopting.size("000", "stdout")
    printed = b"it is " + VALUE + b"\n"
    await adopting.append("000", "stdout", size, printed[size:])
    await adopting.finish()
    assert sink.streams["000", "stdout"] == b"it is " + STARS + b"\n"


async def test_what_a_store_did_not_take_is_stored_with_the_next_piece_once() -> None:
    sink = Flaky()
    log = a_log(sink)
    sink.failures = 1
    for _ in range(2):
        try:
            await log.append("000", "stdout", 0, b"it is " + VALUE + b"\n")
        except Unreachable:
            continue
    assert sink.streams["000", "stdout"] == b"it is " + STARS + b"\n"


async def test_a_gap_stays_one_and_the_rest_of_a_secret_behind_it_is_masked_all_the_same() -> None:
    sink = MemoryLog()
    log = a_log(sink)
    await log.append("000", "stdout", 0, VALUE[:3])
    await log.append("000", "stdout", 10, VALUE[3:])
    await log.finish()
    assert sink.streams["000", "stdout"] == VALUE[:3] + b"\0" * 7 + STARS[3:]


async def test_a_prompt_appears_when_the_stream_falls_silent() -> None:
    sink = Telling()
    log = a_log(sink)
    await log.append("000", "stdout", 0, b"say cor")
    assert sink.streams["000", "stdout"] == b"say "
    sink.came.clear()
    async with asyncio.timeout(40 * IDLE_S):
        await sink.came.wait()
    assert sink.streams["000", "stdout"] == b"say cor"
    await log.append("000", "stdout", 7, VALUE[3:] + b".")
    await log.finish()
    assert sink.streams["000", "stdout"] == b"say cor" + STARS[3:] + b"."


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([b"ab", b"a", b"c", b"abab", b"b"]), max_size=14), st.data())
def test_owners_that_come_and_go_leave_the_log_that_one_would_have_written(pieces, data) -> None:
    """Each may send again what was stored, and each may be killed between two pieces."""
    text = b"".join(pieces)

    async def play() -> bytes:
        sink = MemoryLog()
        log, sent = a_log(sink, b"ababa"), 0
        while sent < len(text):
            if data.draw(st.booleans()):
                log = a_log(sink, b"ababa")
                sent = await log.size("0", "stdout")
            size = data.draw(st.integers(1, 4))
            await log.append("0", "stdout", sent, text[sent : sent + size])
            sent = min(len(text), sent + size)
        await log.finish()
        return sink.streams.get(("0", "stdout"), b"")

    written = asyncio.run(play())
    assert len(written) == len(text)
    assert b"ababa" not in written
    assert all(star in (byte, ord("*")) for star, byte in zip(written, text, strict=True))
