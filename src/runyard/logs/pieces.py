"""How an attempt's log lies in an object store: one object per piece of a stream, its offsets in its name. Pure.

    <uid>/<number>/<step>.<stream>/<begin>-<end>        those bytes
    <uid>/<number>/<step>.<stream>/<begin>-<end>.cut    empty: they were cut out by the log's bound
    <uid>/<number>/complete                             empty: nothing more will come

An object is never changed: the same name is the same bytes, so putting it again does nothing. Pieces may overlap (a
large one takes the place of small ones); what no piece covers, before a stream's end, never came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runyard.logs.layout import KEY_PATTERN, rank
from runyard.logs.port import Hole, StreamInfo
from runyard.model.attempt import AttemptKey

COMPLETE = "complete"
_PIECE = re.compile(
    rf"(?P<step>{KEY_PATTERN})\.(?P<stream>stdout|stderr)/(?P<begin>\d{{16}})-(?P<end>\d{{16}})(?P<cut>\.cut)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The bytes [begin, end) of one stream; `name` is the object's whole path."""

    name: str
    step: str
    stream: str
    begin: int
    end: int
    is_cut: bool = False


def folder(key: AttemptKey) -> str:
    return f"{key.uid}/{key.number}"


def complete_name(key: AttemptKey) -> str:
    return f"{folder(key)}/{COMPLETE}"


def piece(key: AttemptKey, step: str, stream: str, begin: int, end: int, *, is_cut: bool = False) -> Piece:
    name = f"{folder(key)}/{step}.{stream}/{begin:016d}-{end:016d}{'.cut' if is_cut else ''}"
    return Piece(name=name, step=step, stream=stream, begin=begin, end=end, is_cut=is_cut)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStream:
    """One stream as it lies there: its pieces that hold bytes in order, and what was cut out."""

    step: str
    stream: str
    pieces: tuple[Piece, ...]
    cut: Hole | None

    @property
    def info(self) -> StreamInfo:
        return StreamInfo(step=self.step, stream=self.stream, size=self.size, holes=self._holes())

    @property
    def size(self) -> int:
        return max([each.end for each in self.pieces] + ([self.cut.end] if self.cut else []))

    def piece_at(self, offset: int) -> Piece | None:
        """The one that goes on furthest from there; None at the end and in a hole."""
        if self.cut is not None and self.cut.begin <= offset < self.cut.end:
            return None
        there = (each for each in self.pieces if each.begin <= offset < each.end)
        return max(there, key=lambda each: each.end, default=None)

    def _holes(self) -> tuple[Hole, ...]:
        holes, at = [] if self.cut is None else [self.cut], 0
        covered = sorted(
            [(each.begin, each.end) for each in self.pieces] + [(hole.begin, hole.end) for hole in holes]
        )
        for begin, end in covered:
            if begin > at:
                holes.append(Hole(at, begin, is_cut=False))
            at = max(at, end)
        return tuple(sorted(holes, key=lambda hole: hole.begin))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLog:
    """One attempt's log, from a listing of its folder."""

    streams: Mapping[tuple[str, str], StoredStream]
    is_complete: bool

    def infos(self) -> list[StreamInfo]:
        """Setup first, then by step; stdout before stderr."""
        return [stored.info for stored in self.streams.values()]


def parse_listing(key: AttemptKey, names: Iterable[str]) -> StoredLog:
    """What is none of ours is passed over."""
    prefix, is_complete = f"{folder(key)}/", False
    found: dict[tuple[str, str], list[Piece]] = {}
    for name in names:
        rest = name.removeprefix(prefix)
        match = _PIECE.fullmatch(rest)
        if match is not None:
            begin, end = int(match["begin"]), int(match["end"])
            one = piece(key, match["step"], match["stream"], begin, end, is_cut=match["cut"] is not None)
            found.setdefault((one.step, one.stream), []).append(one)
        elif rest == COMPLETE:
            is_complete = True
    streams = {name: _stream_of(*name, found[name]) for name in sorted(found, key=_order)}
    return StoredLog(streams=streams, is_complete=is_complete)


def _stream_of(step: str, stream: str, pieces: list[Piece]) -> StoredStream:
    """A cut only grows: the widest holds."""
    cuts = [each for each in pieces if each.is_cut]
    cut = (
        Hole(min(each.begin for each in cuts), max(each.end for each in cuts), is_cut=True) if cuts else None
    )
    data = sorted((each for each in pieces if not each.is_cut), key=lambda each: (each.begin, -each.end))
    return StoredStream(step=step, stream=stream, pieces=tuple(data), cut=cut)


def _order(name: tuple[str, str]) -> tuple[int, bool]:
    step, stream = name
    return (rank(step), stream == "stderr")


def kept_ranges(info: StreamInfo) -> list[tuple[int, int]]:
    """The [begin, end) of a stream that are there."""
    ranges, at = [], 0
    for hole in info.holes:
        if hole.begin > at:
            ranges.append((at, min(hole.begin, info.size)))
        at = max(at, hole.end)
    if at < info.size:
        ranges.append((at, info.size))
    return ranges


def superfluous(stored: StoredStream, ranges: list[tuple[int, int]]) -> list[Piece]:
    """The pieces that are not needed where `ranges` lie there as one piece each: what these, and the cut, cover."""
    exact = {(each.begin, each.end) for each in stored.pieces} & set(ranges)
    spans: list[tuple[int, int]] = []
    for begin, end in sorted(exact | ({(stored.cut.begin, stored.cut.end)} if stored.cut else set())):
        if spans and begin <= spans[-1][1]:
            begin, end = spans[-1][0], max(end, spans.pop()[1])
        spans.append((begin, end))
    return [
        each
        for each in stored.pieces
        if (each.begin, each.end) not in exact
        and any(begin <= each.begin and each.end <= end for begin, end in spans)
    ]
