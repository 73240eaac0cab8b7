"""How a list of jobs is read, the same on every database: which index ranges hold what a filter wants, what is then
checked row by row, and the cursor that goes on from there.

The most telling filter picks the index; states are always spelled out, so that (tenant, state), (queue, state) and
(pool, state) are ranges in order of submission. The ranges are merged; what no index answers is checked row by row, at
most SCAN_MAX of them per page: a page may then be short, and its cursor goes on from where it stopped.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import msgspec

from runyard.ledger.port import JobFilter
from runyard.model.errors import Invalid
from runyard.model.job import JobState

SCAN_MAX = 10_000
LIMIT_MAX = 1000

_OF_JOB = "j.serial, j.id, j.name, j.queue, j.tenant, j.state, j.pool"
_COLUMNS = f"j.submitted_at, j.uid, {_OF_JOB}"
_BEFORE = "(j.submitted_at, j.uid) < (:at, :uid) AND j.submitted_at >= :since ORDER BY j.submitted_at DESC, j.uid DESC"
_BY_STATE = f"SELECT {_COLUMNS} FROM jobs j WHERE j.state = :state AND {_BEFORE}"
_BY_TENANT = f"SELECT {_COLUMNS} FROM jobs j WHERE j.tenant = :tenant AND j.state = :state AND {_BEFORE}"
_BY_QUEUE = f"SELECT {_COLUMNS} FROM jobs j WHERE j.queue = :queue AND j.state = :state AND {_BEFORE}"
_BY_POOL = f"SELECT {_COLUMNS} FROM jobs j WHERE j.pool = :pool AND j.state = :state AND {_BEFORE}"
_BY_LABEL = (  # with the label's own copy of what it is ordered by: a planner does not know the job's to be the same
    f"SELECT l.submitted_at, l.uid, {_OF_JOB} FROM job_labels l JOIN jobs j ON j.serial = l.serial"
    " WHERE l.label = :label AND l.value = :value AND (l.submitted_at, l.uid) < (:at, :uid)"
    " AND l.submitted_at >= :since"
    " ORDER BY l.submitted_at DESC, l.uid DESC"
)

COUNT_LABELLED = f"""
    SELECT count(*) AS labelled FROM (
        SELECT 1 FROM job_labels WHERE label = :label AND value = :value LIMIT {SCAN_MAX}) x
"""
Position = tuple[float, str]
"""(submitted_at, uid): the last job that was looked at."""

_START: Position = (9e99, "")
_NEVER = -9e99


def ranges(filter_: JobFilter) -> Iterator[tuple[str, dict[str, Any]]]:
    """The index ranges that together hold everything the filter wants, none twice. Each wants `:at`, `:uid` and
    `:since` too."""
    states = [state.value for state in dict.fromkeys(filter_.states or JobState)]
    for label, value in filter_.labels.items():
        yield _BY_LABEL, {"label": label, "value": value}
        return  # the first label's range holds them all
    if filter_.pool is not None:
        for state in states:
            yield _BY_POOL, {"pool": filter_.pool, "state": state}
    elif filter_.tenants is not None:
        for tenant in dict.fromkeys(filter_.tenants):
            for state in states:
                yield _BY_TENANT, {"tenant": tenant, "state": state}
    elif filter_.queue is not None:
        for state in states:
            yield _BY_QUEUE, {"queue": filter_.queue, "state": state}
    else:
        for state in states:
            yield _BY_STATE, {"state": state}


def wanted(filter_: JobFilter) -> Iterator[tuple[str, list[str]]]:
    """What a row's columns may hold, whatever its index has answered already. A column not named may hold all."""
    if filter_.queue is not None:
        yield "queue", [filter_.queue]
    if filter_.pool is not None:
        yield "pool", [filter_.pool]
    if filter_.tenants is not None:
        yield "tenant", list(filter_.tenants)
    if filter_.states:
        yield "state", [state.value for state in filter_.states]


def further_labels(filter_: JobFilter) -> Iterator[tuple[str, dict[str, str]]]:
    """A condition on a row `x` of the walk for each label but the first, whose range it is. It counts the one row of
    the key: for an EXISTS PostgreSQL may read all that have the label first."""
    for place, (label, value) in enumerate(islice(filter_.labels.items(), 1, None)):
        yield (
            f"(SELECT count(*) FROM job_labels m WHERE m.label = :further_{place} AND m.value = :is_{place}"
            " AND m.submitted_at = x.submitted_at AND m.uid = x.uid) > 0",
            {f"further_{place}": label, f"is_{place}": value},
        )


def first_position(filter_: JobFilter, cursor: str | None) -> Position:
    """Where to begin: at the cursor, or at the newest that the filter lets through. Raises Invalid (the cursor)."""
    position = decode_cursor(cursor)
    return position if filter_.until is None else min(position, (filter_.until, ""))


def first_moment(filter_: JobFilter) -> float:
    """`:since` of the ranges."""
    return _NEVER if filter_.since is None else filter_.since


def rarest_first(filter_: JobFilter, counts: Mapping[str, int]) -> JobFilter:
    """The same with its labels in that order: the first one's range is what is walked through. `counts` by label."""
    ordered = sorted(filter_.labels.items(), key=lambda item: counts[item[0]])
    return replace(filter_, labels=dict(ordered))


def bounded(limit: int) -> int:
    return max(1, min(limit, LIMIT_MAX))


def encode_cursor(position: Position) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> Position:
    """Where to go on; the start for None. Raises Invalid for what is not ours."""
    if cursor is None:
        return _START
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        document = base64.b64decode(padded, altchars=b"-_", validate=True)
        position: Position = msgspec.json.decode(document, type=tuple[float, str])
    except (binascii.Error, msgspec.DecodeError, UnicodeError) as error:
        raise Invalid(
            f"cursor {cursor[:60]!r} is not one of ours", field="cursor", cure="start without a cursor"
        ) from error
    return position
