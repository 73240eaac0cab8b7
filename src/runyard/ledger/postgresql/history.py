"""The history of queues and pools: written in buckets, read as sums over stretches of time."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.ledger import rows, statements
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.history import HistoryRow, HistorySum, Subject


async def add_history(database: Database, new: Sequence[HistoryRow]) -> None:
    await database.execute(
        "INSERT INTO history (subject, name, bucket, figure, writer, amount, seconds)"
        " SELECT x.subject, x.name, x.bucket, x.figure, x.writer, x.amount, x.seconds"
        " FROM jsonb_to_recordset(:rows::jsonb) AS x (subject text, name text, bucket bigint, figure text,"
        " writer text, amount double precision, seconds double precision)"
        " ORDER BY x.subject, x.name, x.bucket, x.figure, x.writer"  # the same order everywhere: no deadlock
        " ON CONFLICT DO NOTHING",
        rows=rows.to_json([rows.history_columns(row) for row in new]),
    )


async def read_history(
    snapshot: Snapshot, subject: Subject, name: str, *, begin: int, end: int, step_s: int
) -> list[HistorySum]:
    found = await snapshot.rows(
        statements.READ_HISTORY,
        subject=subject.value,
        name=name,
        begin=begin,
        end=end,
        step=step_s,
        limit=statements.HISTORY_MAX,
    )
    return [rows.history_sum_of(row) for row in found]


async def delete_history(database: Database, *, before: float, buckets: int) -> int:
    return await database.execute(statements.DELETE_HISTORY, before=int(before), limit=buckets)
