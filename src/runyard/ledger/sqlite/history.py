"""The history of queues and pools: written in buckets, read as sums over stretches of time."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.ledger import rows, statements
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.history import HistoryRow, HistorySum, Subject


def add_history(tx: Transaction, new: Sequence[HistoryRow]) -> None:
    for row in new:
        tx.execute(
            "INSERT INTO history (subject, name, bucket, figure, writer, amount, seconds)"
            " VALUES (:subject, :name, :bucket, :figure, :writer, :amount, :seconds) ON CONFLICT DO NOTHING",
            **rows.history_columns(row),
        )


def read_history(
    tx: Transaction, subject: Subject, name: str, *, begin: int, end: int, step_s: int
) -> list[HistorySum]:
    found = tx.rows(
        statements.READ_HISTORY,
        subject=subject.value,
        name=name,
        begin=begin,
        end=end,
        step=step_s,
        limit=statements.HISTORY_MAX,
    )
    return [rows.history_sum_of(row) for row in found]


def delete_history(tx: Transaction, *, before: float, buckets: int) -> int:
    return tx.execute(statements.DELETE_HISTORY, before=int(before), limit=buckets)
