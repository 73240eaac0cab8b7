"""How far an attempt's set-up is, from its journal to whoever shows it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from runyard.host.journal import Record


@runtime_checkable
class ProgressSink(Protocol):
    """The part of a RunContext that takes it; one that does not show any needs none."""

    async def record_progress(
        self,
        text: str | None,
        *,
        fraction: float | None = None,
        done_bytes: int | None = None,
        total_bytes: int | None = None,
    ) -> None: ...


async def pass_on(record: Record, context: object) -> None:
    if isinstance(context, ProgressSink):
        await context.record_progress(
            record["text"],
            fraction=record["fraction"],
            done_bytes=record["done_bytes"],
            total_bytes=record["total_bytes"],
        )
