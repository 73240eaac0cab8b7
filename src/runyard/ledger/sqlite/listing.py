"""The list of jobs, newest first, at a bounded cost for any filter over millions: the ranges of paging.py, read lazily
and merged."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator

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
    scanned = 0
    for row in _newest_first(tx, filter_, position):
        if len(found) == limit or scanned == scan_max:
            return _page(tx, found, paging.encode_cursor(position))
        if paging.is_past(filter_, row):
            break
        position, scanned = (row["submitted_at"], row["uid"]), scanned + 1
        if paging.matches(filter_, row) and _has_labels(tx, filter_, row["serial"]):
            found.append(row["serial"])
    return _page(tx, found, None)


def _page(tx: Transaction, serials: list[int], next_cursor: str | None) -> Page:
    return Page(tuple(jobs.get_job_by_serial(tx, serial) for serial in serials), next_cursor)


def _newest_first(tx: Transaction, filter_: JobFilter, after: paging.Position) -> Iterator[sqlite3.Row]:
    streams = [
        tx.connection.execute(sql, {**values, "at": after[0], "uid": after[1]})
        for sql, values in paging.ranges(filter_)
    ]
    return heapq.merge(*streams, key=lambda row: (row["submitted_at"], row["uid"]), reverse=True)


def _has_labels(tx: Transaction, filter_: JobFilter, serial: int) -> bool:
    if len(filter_.labels) < 2:
        return True  # the range has answered it
    found = tx.rows("SELECT label, value FROM job_labels WHERE serial = :serial", serial=serial)
    return set(filter_.labels.items()) <= {(row["label"], row["value"]) for row in found}
