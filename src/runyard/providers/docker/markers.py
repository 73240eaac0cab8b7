"""Tells Runyard's words in a container's log from what the steps printed. Pure.

A container has one log; step.sh writes markers into it (`\\x1eMARK begin 000\\x1e` and a newline, on both streams).
What stands between them belongs to the step that began last; a marker may follow a line that has no end, and may be cut
anywhere by the daemon's frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

MARKER_BYTES_MAX = 128 * 1024
LINE_BYTES_MAX = 16 * 1024
"""Of dockerd's buffer: a longer line comes in several frames."""
_END = b"\x1e\n"


@dataclass(frozen=True, slots=True)
class Printed:
    """Bytes of a step's stream. `is_cut`: the daemon rotated away what came before them, nobody knows how much."""

    step: int
    data: bytes
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """A marker's words, and the daemon's time of it."""

    words: tuple[str, ...]
    at: float


class StreamSplitter:
    """One stream of one container, from its beginning, or from where the daemon rotated it away: then the first marker
    is the end of the step whose bytes came before it, of which the last `cut_bytes_max` are held for it."""

    def __init__(self, mark: str, *, cut_bytes_max: int = 64 * 1024) -> None:
        self._start = b"\x1e" + mark.encode() + b" "
        self._held = b""
        self._step: int | None = None
        self._cut_bytes_max = cut_bytes_max
        self._early = b""

    def feed(self, data: bytes, at: float) -> Iterator[Printed | Said]:
        self._held += data
        while self._held:
            begin = self._held.find(self._start)
            if begin < 0:
                yield from self._print(len(self._held) - self._undecided())
                return
            yield from self._print(begin)
            end = self._held.find(_END, len(self._start))
            if end < 0:
                if len(self._held) <= MARKER_BYTES_MAX:
                    return
                yield from self._print(1)  # no marker of ours is as long
                continue
            words = tuple(self._held[len(self._start) : end].decode(errors="replace").split(" "))
            self._held = self._held[end + len(_END) :]
            yield from self._place_early(words)
            if words[0] == "begin":
                self._step = _step_of(words, self._step)
            yield Said(words, at)

    def close(self) -> Iterator[Printed | Said]:
        """The stream has ended: what could have become a marker is what it looks like."""
        yield from self._print(len(self._held))

    def _undecided(self) -> int:
        """How many bytes at the end could be the beginning of a marker."""
        for size in range(min(len(self._start) - 1, len(self._held)), 0, -1):
            if self._held.endswith(self._start[:size]):
                return size
        return 0

    def _print(self, size: int) -> Iterator[Printed]:
        data, self._held = self._held[:size], self._held[size:]
        if not data:
            return
        if self._step is None:
            self._early = (self._early + data)[-self._cut_bytes_max :]
        else:
            yield Printed(self._step, data)

    def _place_early(self, words: tuple[str, ...]) -> Iterator[Printed]:
        """What comes before a first `begin` is nobody's, such as a complaint of busybox."""
        early, self._early = self._early, b""
        if self._step is None and words[0] == "end":
            self._step = _step_of(words, None)
            if early and self._step is not None:
                yield Printed(self._step, early, is_cut=True)


def _step_of(words: tuple[str, ...], otherwise: int | None) -> int | None:
    """The job may write markers too, and they may say anything."""
    number = words[1] if len(words) > 1 else ""
    return int(number) if re.fullmatch("[0-9]{1,4}", number) else otherwise


def mend_line(data: bytes) -> bytes:
    """Docker's log driver `local` (20.10 at least) loses the newline of a line longer than its buffer. A frame without
    one is else a full buffer, or the last of its stream, which step.sh ends with a marker."""
    return data if data.endswith(b"\n") or len(data) == LINE_BYTES_MAX else data + b"\n"


def split_time(data: bytes) -> tuple[float, bytes]:
    """A frame's time (RFC 3339 with nanoseconds, epoch seconds here) and its bytes."""
    stamp, blank, rest = data.partition(b" ")
    if not blank:
        return 0.0, data
    return parse_time(stamp.decode(errors="replace")), rest


def parse_time(text: str) -> float:
    """Epoch seconds; 0 for the daemon's `0001-01-01T00:00:00Z`, which says never."""
    if text.startswith("0001-") or not text:
        return 0.0
    rest = text[19:]
    fraction = re.match(r"\.([0-9]+)", rest)
    zone = rest[fraction.end() :] if fraction else rest
    moment = datetime.fromisoformat(text[:19] + (zone.replace("Z", "+00:00") or "+00:00"))
    return moment.timestamp() + (int(fraction[1][:6].ljust(6, "0")) / 1e6 if fraction else 0.0)
