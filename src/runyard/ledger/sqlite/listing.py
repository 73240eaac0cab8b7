"""The list of jobs, newest first, at a bounded cost for any filter over millions: the ranges of paging.py, merged and
looked at by the database. A row that does not fit never becomes one of Python's: each that did would let go of the
interpreter and wait for it again, ten thousand times a page."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from runyard.ledger import paging, rows
from runyard.ledger.port import JobFilter, Page
from runyard.ledger.sqlite import jobs
from runyard.ledger.sqlite.transaction import Transaction

RANGES_MAX = 400
"""SQLite joins 500 SELECTs at most; of more ranges (a token for many tenants) so many are joined at a time."""

_FOLDED = "CASE WHEN name GLOB '*[^ -~]*' THEN casefold(name) ELSE lower(name) END"
"""casefold is Python's, and each call waits for the interpreter: only for names that are more than ASCII."""

_ORDER = " ORDER BY "
Sql = tuple[str, dict[str, Any]]


def list_jobs(
    tx: Transaction, filter_: JobFilter, *, limit: int, cursor: str | None, scan_max: int = paging.SCAN_MAX
) -> Page:
    limit = paging.bounded(limit)
    after = paging.first_position(filter_, cursor)
    filter_ = _rarest_label_first(tx, filter_)
    walk, values = _walk(filter_)
    if not walk:
        return Page((), None)
    values |= {"at": after[0], "uid": after[1], "since": paging.first_moment(filter_), "most": scan_max}
    fits, own = _fits(filter_)
    found = tx.rows(
        f"SELECT submitted_at, uid, serial FROM ({walk}) x WHERE {fits} LIMIT :wanted",
        **values,
        **own,
        wanted=limit + 1,
    )
    last: sqlite3.Row | None = found[limit - 1] if len(found) > limit else None
    if last is None:  # the bound of the walk, if it got there
        last = tx.row(f"SELECT submitted_at, uid FROM ({walk}) x LIMIT 1 OFFSET :most - 1", **values)
    serials = [row["serial"] for row in found[:limit]]
    next_cursor = None if last is None else paging.encode_cursor((last["submitted_at"], last["uid"]))
    return Page(tuple(jobs.get_job_by_serial(tx, serial) for serial in serials), next_cursor)


def _walk(filter_: JobFilter) -> Sql:
    """The first `:most` rows of all ranges together, newest first; nothing where there is no range."""
    parts: list[str] = []
    values: dict[str, Any] = {}
    for place, (sql, own) in enumerate(paging.ranges(filter_)):
        for name, value in own.items():
            sql = sql.replace(f":{name} ", f":{name}_{place} ")
            values[f"{name}_{place}"] = value
        parts.append(sql)
    return (f"{_merged(parts)} LIMIT :most" if parts else ""), values


def _merged(parts: Sequence[str]) -> str:
    """Each part is in order by its index, so SQLite merges them as they are read."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) > RANGES_MAX:
        groups = [parts[start : start + RANGES_MAX] for start in range(0, len(parts), RANGES_MAX)]
        return _merged([f"SELECT * FROM ({_merged(group)} LIMIT :most){_ORDER}1" for group in groups])
    return " UNION ALL ".join(part.rpartition(_ORDER)[0] for part in parts) + f"{_ORDER}1 DESC, 2 DESC"


def _fits(filter_: JobFilter) -> Sql:
    """All of the filter, whatever its index has answered already; but for the first label, whose range it is."""
    conditions, values = ["1"], dict[str, Any]()
    for column, wanted in paging.wanted(filter_):
        conditions.append(f"{column} IN (SELECT value FROM json_each(:{column}_in))")
        values[f"{column}_in"] = rows.to_json(wanted)
    if filter_.text:
        conditions.append(f"(instr(id, :text) > 0 OR instr({_FOLDED}, :text) > 0)")
        values["text"] = filter_.text.casefold()
    for condition, own in paging.further_labels(filter_):
        conditions.append(condition)
        values |= own
    return " AND ".join(conditions), values


def _rarest_label_first(tx: Transaction, filter_: JobFilter) -> JobFilter:
    if len(filter_.labels) < 2:
        return filter_
    counts = {
        label: tx.one(paging.COUNT_LABELLED, label=label, value=value)["labelled"]
        for label, value in filter_.labels.items()
    }
    return paging.rarest_first(filter_, counts)
