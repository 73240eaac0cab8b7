"""From a container's log as the kubelet serves it, each line with its time before it, to bytes at their offsets. Pure.

The offset of a byte counts the job's own bytes, without the times. A stream that was dropped is taken up from the first
line of the second in which it was (`since`): that line's time is the anchor which says at which offset the new stream
begins. Where the anchor is gone the kubelet has rotated the file: how much is lost is not known, so one byte's gap
stands for it. The kubelet cuts the log of a container by size (10 MiB by default) and serves the newest file only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_STAMP_BYTES_MAX = 40


@dataclass(frozen=True, slots=True)
class Piece:
    offset: int
    data: bytes


class StampedLines:
    """`stored` bytes are kept already and are left out of what `feed` gives."""

    def __init__(self) -> None:
        self.stored = 0
        self._offset = 0  # of the next byte of content
        self._head = b""  # the beginning of a line whose time is not whole yet
        self._in_line = False
        self._is_skipping = False  # this line is left out: seen before, or none of the job's
        self._anchor: tuple[bytes, int] | None = None  # a line's time, and the offset at which it begins
        self._newest = b""  # the latest time of all lines: the kubelet writes them at one width, so they sort
        self._is_resuming = False
        self.foreign = ""  # what the kubelet said instead of the log

    @property
    def since(self) -> str | None:
        """From where a new stream must begin: the server takes whole seconds only."""
        if self._anchor is None:
            return None
        match = _STAMP.fullmatch(self._anchor[0])
        assert match is not None
        return (match[1] + match[3]).decode()

    def begin_stream(self) -> None:
        """A new stream comes, from `since` on."""
        self._head, self._in_line, self._is_skipping = b"", False, False
        self._is_resuming = self._anchor is not None

    def lose_place(self, kept: int, first: Piece) -> None:
        """`first`, the first piece of this log, is not what the first of the `kept` bytes are: it is new, and comes
        behind a gap of one byte."""
        moved = kept + 1 - first.offset
        self._offset += moved
        self.stored = first.offset + len(first.data) + moved
        self._anchor = None if self._anchor is None else (self._anchor[0], self._anchor[1] + moved)

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """The bytes in it that are new, in order."""
        found, begin = bytearray(), self._offset
        for content in self._contents(chunk):
            if self._offset != begin + len(found):
                yield from self._new(begin, bytes(found))
                found, begin = bytearray(), self._offset
            found += content
            self._offset += len(content)
        yield from self._new(begin, bytes(found))

    def _new(self, offset: int, data: bytes) -> Iterator[Piece]:
        known = max(0, self.stored - offset)
        if known < len(data):
            self.stored = offset + len(data)
            yield Piece(offset + known, data[known:])

    def _contents(self, chunk: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(chunk):
            if not self._in_line:
                at = self._begin_line(chunk, at)
                continue
            newline = chunk.find(b"\n", at)
            end = len(chunk) if newline < 0 else newline + 1
            if not self._is_skipping:
                yield chunk[at:end]
            self._in_line = newline < 0
            at = end

    def _begin_line(self, chunk: bytes, at: int) -> int:
        """Takes a line's time; returns where its content begins, or the chunk's end where more is to come."""
        space = chunk.find(b" ", at, at + _STAMP_BYTES_MAX)
        if space < 0 and len(self._head) + len(chunk) - at < _STAMP_BYTES_MAX and b"\n" not in chunk[at:]:
            self._head += chunk[at:]
            return len(chunk)
        stamp = self._head + chunk[at : max(space, at)]
        self._in_line = True
        if not _STAMP.fullmatch(stamp):
            self.foreign = (self._head + chunk[at : at + 200]).decode(errors="replace").partition("\n")[0]
            self._head, self._is_skipping = b"", True
            return at
        self._head = b""
        self._note_line(stamp)
        return space + 1

    def _note_line(self, stamp: bytes) -> None:
        self._is_skipping = self._is_resuming and not self._finds_place(stamp)
        if self._is_skipping:
            return
        if self._anchor is None or self._anchor[0][:19] != stamp[:19]:
            self._anchor = (stamp, self._offset)
        self._newest = max(self._newest, stamp)

    def _finds_place(self, stamp: bytes) -> bool:
        """Whether this line is the anchor, or one from after all that was seen: then the anchor is gone."""
        assert self._anchor is not None
        if stamp == self._anchor[0]:
            self._offset, self._is_resuming = self._anchor[1], False
            return True
        if stamp > self._newest:
            self._offset, self._is_resuming = self.stored + 1, False
            self._anchor = (stamp, self._offset)
            return True
        return False
