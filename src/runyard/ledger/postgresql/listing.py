"""The list of jobs, newest first, at a bounded cost for any filter over millions: the ranges of paging.py, merged and
looked at by the server in one statement. A row that does not fit never leaves it."""

from __future__ import annotations

from typing import Any

from runyard.ledger import paging, rows
from runyard.ledger.port import JobFilter, Page
from runyard.ledger.postgresql.folding import holds_folded
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.ledger.postgresql.template import suffixed

_NEWEST_FIRST = "ORDER BY submitted_at DESC, uid DESC"
Sql = tuple[str, dict[str, Any]]


async def list_jobs(
    snapshot: Snapshot, filter_: JobFilter, *, limit: int, cursor: str | None, scan_max: int = paging.SCAN_MAX
) -> Page:
    limit = paging.bounded(limit)
    after = paging.first_position(filter_, cursor)
    filter_ = await _rarest_label_first(snapshot, filter_)
    walk, values = _walk(filter_, scan_max)
    if not walk:
        return Page((), None)
    fits, own = _fits(filter_)
    looked_at = await snapshot.rows(
        f"SELECT submitted_at, uid, serial, place, {fits} AS fits FROM ({walk}) x"
        f" WHERE {fits} OR place = {scan_max} {_NEWEST_FIRST} LIMIT :wanted",
        at=after[0],
        uid=after[1],
        since=paging.first_moment(filter_),
        wanted=limit + 1,
        **values,
        **own,
    )
    found = [row for row in looked_at if row["fits"]]
    last = found[limit - 1] if len(found) > limit else None
    if last is None and looked_at and looked_at[-1]["place"] == scan_max:
        last = looked_at[-1]
    next_cursor = None if last is None else paging.encode_cursor((last["submitted_at"], last["uid"]))
    return await _page(snapshot, [row["serial"] for row in found[:limit]], next_cursor)


async def _page(snapshot: Snapshot, serials: list[int], next_cursor: str | None) -> Page:
    found = await snapshot.rows("SELECT * FROM job_row WHERE serial = ANY (:serials)", serials=serials)
    by_serial = {row["serial"]: rows.job_of(row) for row in found}
    return Page(tuple(by_serial[serial] for serial in serials), next_cursor)


def _walk(filter_: JobFilter, scan_max: int) -> Sql:
    """The first `scan_max` rows of all ranges together, newest first, each with its place among them; nothing where
    there is no range. The bound is a literal: for a parameter a generic plan reckons with a tenth of the table, and may
    sort that instead of merging what the indexes have in order."""
    parts: list[str] = []
    values: dict[str, Any] = {}
    for number, (sql, own) in enumerate(paging.ranges(filter_)):
        text, renamed = suffixed(sql, own, str(number))
        parts.append(f"({text} LIMIT {scan_max})")
        values |= renamed
    if not parts:
        return "", {}
    merged = parts[0]
    if len(parts) > 1:
        merged = f"(SELECT * FROM ({' UNION ALL '.join(parts)}) r {_NEWEST_FIRST} LIMIT {scan_max})"
    return f"SELECT w.*, row_number() OVER ({_NEWEST_FIRST}) AS place FROM {merged} w", values


def _fits(filter_: JobFilter) -> Sql:
    """All of the filter, whatever its index has answered already; but for the first label, whose range it is."""
    conditions, values = ["true"], dict[str, Any]()
    for column, wanted in paging.wanted(filter_):
        conditions.append(f"{column} = ANY (:{column}_in)")
        values[f"{column}_in"] = wanted
    if filter_.text:
        condition, own = holds_folded("name", filter_.text.casefold())
        conditions.append(f"(strpos(id, :text) > 0 OR {condition})")
        values |= own
    for condition, own in paging.further_labels(filter_):
        conditions.append(condition)
        values |= own
    return f"({' AND '.join(conditions)})", values


async def _rarest_label_first(snapshot: Snapshot, filter_: JobFilter) -> JobFilter:
    if len(filter_.labels) < 2:
        return filter_
    counts = {
        label: (await snapshot.one(paging.COUNT_LABELLED, label=label, value=value))["labelled"]
        for label, value in filter_.labels.items()
    }
    return paging.rarest_first(filter_, counts)
