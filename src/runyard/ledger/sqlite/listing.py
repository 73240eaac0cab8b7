"""The list of jobs, newest first, at a bounded cost for any filter over millions: the ranges of paging.py, read lazily
and merged."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Any

from runyard.ledger import paging
from runyard.ledger.port import JobFilter, Page
from runyard.ledger.sqlite import jobs
from runyard.ledger.sqlite.transaction import Transaction


def list_jobs(
    tx: Transaction, filter_: JobFilter, *, limit: int, cursor: str | None, scan_max: int = paging.SCAN_MAX
) -> Page:
    limit = paging.bounded(limit)
    found: list[int] = []
    position = paging.first_position(filter_, cursor)
    filter_ = _rarest_label_first(tx, filter_)
    matches = paging.matcher(filter_)
    scanned = 0
    for row in _newest_first(tx, filter_, position):
        if len(found) == limit or scanned == scan_max:
            return _page(tx, found, paging.encode_cursor(position))
        if paging.is_past(filter_, row):
            break
        position, scanned = (row[paging.AT], row[paging.UID]), scanned + 1
        if matches(row) and _has_labels(tx, filter_, row):
            found.append(row[paging.SERIAL])
    return _page(tx, found, None)


def _page(tx: Transaction, serials: list[int], next_cursor: str | None) -> Page:
    return Page(tuple(jobs.get_job_by_serial(tx, serial) for serial in serials), next_cursor)


def _newest_first(tx: Transaction, filter_: JobFilter, after: paging.Position) -> Iterator[tuple[Any, ...]]:
    """Plain tuples, which begin with what they are ordered by and are told apart by it."""
    streams = []
    for sql, values in paging.ranges(filter_):
        cursor = tx.connection.cursor()
        cursor.row_factory = None
        streams.append(cursor.execute(sql, {**values, "at": after[0], "uid": after[1]}))
    return heapq.merge(*streams, reverse=True)


def _rarest_label_first(tx: Transaction, filter_: JobFilter) -> JobFilter:
    if len(filter_.labels) < 2:
        return filter_
    counts = {
        label: tx.one(paging.COUNT_LABELLED, label=label, value=value)["labelled"]
        for label, value in filter_.labels.items()
    }
    return paging.rarest_first(filter_, counts)


def _has_labels(tx: Transaction, filter_: JobFilter, row: tuple[Any, ...]) -> bool:
    """The range has answered the first one."""
    return all(
        tx.row(paging.HAS_LABEL, label=label, value=value, at=row[paging.AT], uid=row[paging.UID])
        for label, value in islice(filter_.labels.items(), 1, None)
    )
