"""The list of jobs, newest first, at a bounded cost for any filter over millions: the ranges of paging.py, each cut to
a chunk and merged by the server, chunk after chunk until the page is full."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from runyard.ledger import paging, rows
from runyard.ledger.port import JobFilter, Page
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.ledger.postgresql.template import suffixed

_LABELLED = """
    SELECT serial FROM job_labels WHERE serial = ANY (:serials) AND label = :label AND value = :value
"""

CHUNK_GROWTH = 4
CHUNK_MAX = 2000


async def list_jobs(
    snapshot: Snapshot, filter_: JobFilter, *, limit: int, cursor: str | None, scan_max: int = paging.SCAN_MAX
) -> Page:
    limit = paging.bounded(limit)
    position = paging.first_position(filter_, cursor)
    filter_ = await _rarest_label_first(snapshot, filter_)
    matches = paging.matcher(filter_)
    found: list[int] = []
    scanned, chunk = 0, limit + 1
    while True:
        batch = await _next_chunk(snapshot, filter_, position, chunk)
        matching = await _matching(snapshot, filter_, [row for row in batch if matches(row)])
        for row in batch:
            if len(found) == limit or scanned == scan_max:
                return await _page(snapshot, found, paging.encode_cursor(position))
            position, scanned = (row[paging.AT], row[paging.UID]), scanned + 1
            if row[paging.SERIAL] in matching:
                found.append(row[paging.SERIAL])
        if len(batch) < chunk:
            return await _page(snapshot, found, None)
        chunk = min(chunk * CHUNK_GROWTH, CHUNK_MAX)


async def _page(snapshot: Snapshot, serials: list[int], next_cursor: str | None) -> Page:
    found = await snapshot.rows("SELECT * FROM job_row WHERE serial = ANY (:serials)", serials=serials)
    by_serial = {row["serial"]: rows.job_of(row) for row in found}
    return Page(tuple(by_serial[serial] for serial in serials), next_cursor)


async def _next_chunk(
    snapshot: Snapshot, filter_: JobFilter, after: paging.Position, size: int
) -> Sequence[paging.Ranged]:
    parts: list[str] = []
    values: dict[str, Any] = {
        "at": after[0],
        "uid": after[1],
        "since": paging.first_moment(filter_),
        "size": size,
    }
    for place, (sql, own) in enumerate(paging.ranges(filter_)):
        text, renamed = suffixed(sql, own, str(place))
        parts.append(f"({text} LIMIT :size)")
        values |= renamed
    if not parts:
        return []
    merged = " UNION ALL ".join(parts)
    return await snapshot.rows(
        f"SELECT * FROM ({merged}) x ORDER BY submitted_at DESC, uid DESC LIMIT :size", **values
    )


async def _rarest_label_first(snapshot: Snapshot, filter_: JobFilter) -> JobFilter:
    if len(filter_.labels) < 2:
        return filter_
    counts = {
        label: (await snapshot.one(paging.COUNT_LABELLED, label=label, value=value))["labelled"]
        for label, value in filter_.labels.items()
    }
    return paging.rarest_first(filter_, counts)


async def _matching(snapshot: Snapshot, filter_: JobFilter, candidates: Sequence[paging.Ranged]) -> set[int]:
    """The serials of those that have all labels; the range has answered the first one."""
    serials = [row["serial"] for row in candidates]
    for label, value in islice(filter_.labels.items(), 1, None):
        if not serials:
            break
        found = await snapshot.rows(_LABELLED, serials=serials, label=label, value=value)
        serials = [row["serial"] for row in found]
    return set(serials)
