"""How Runyard speaks to a terminal: its own words on stderr, answers as calm tables, times for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from runyard.cli.cures import cure_in_words

if TYPE_CHECKING:
    from pydantic import BaseModel

    from runyard.cli.cures import AnyProblem
    from runyard.sdk.errors import RunyardApiError
    from runyard.wire.answers import ProgressAnswer

_COLOURS = {
    "succeeded": "32",
    "ok": "32",
    "healthy": "32",
    "failed": "31",
    "lost": "31",
    "refused": "31",
    "unhealthy": "31",
    "timed_out": "33",
    "canceled": "33",
    "canceling": "33",
    "paused": "33",
    "degraded": "33",
    "running": "36",
    "starting": "36",
}


def say(message: str) -> None:
    """One line of Runyard's own, apart from what jobs print."""
    print(f"runyard: {message}", file=sys.stderr, flush=True)


def say_error(error: RunyardApiError) -> None:
    """The message names what was tried; the field, the cure and the further problems of the same request follow."""
    say_problem(error)


def say_problem(problem: AnyProblem, *, prefix: str = "") -> None:
    """`prefix` is put before each message, so that a line of many can be told from its neighbours."""
    for one in (problem, *problem.more):
        say(f"{prefix}{one.message}")
        if one.field:
            say(f"  field: {one.field}")
        cure = cure_in_words(one)
        if cure:
            say(f"  cure: {cure}")


def use_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(word: str, stream: TextIO) -> str:
    code = _COLOURS.get(word.strip())
    return f"\x1b[{code}m{word}\x1b[0m" if code and use_colour(stream) else word


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns two spaces apart, as wide as they need; None is `-`; control characters are shown, not obeyed."""
    table = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(headings), *table]) for index in range(len(headings))]
    for number, row in enumerate([list(headings), *table]):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        line = "  ".join(cells).rstrip() if number == 0 else _coloured_line(cells)
        print(line)


def _coloured_line(cells: list[str]) -> str:
    return "  ".join(coloured(cell, sys.stdout) for cell in cells).rstrip()


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """One fact a line; those that are None or empty are left out."""
    shown = [(name, _cell(value)) for name, value in facts if value not in (None, "", [], {}, ())]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}  {coloured(value, sys.stdout)}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value))


def printable(text: str) -> str:
    """Without the power to move a cursor or to change a colour."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def print_json(value: BaseModel | Sequence[BaseModel] | Any) -> None:
    """For machines: an answer as the API's object has it; a listing as a bare array of such objects."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def time_of(moment: datetime | None, now: datetime | None = None) -> str | None:
    """Local time and age: `2026-11-24 12:10:07 (3m ago)`."""
    if moment is None:
        return None
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S} ({age_of(moment, now)})"


def age_of(moment: datetime | None, now: datetime | None = None) -> str | None:
    """`3m ago`, `in 20s`."""
    if moment is None:
        return None
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    return f"in {span(-seconds)}" if seconds < -1 else f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """The largest two units: `45s`, `3m20s`, `5h2m`, `4d3h`."""
    whole = max(0, int(seconds))
    parts = []
    for name, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{name}")
        elif parts:
            break
    return "".join(parts[:2]) or "0s"


def progress_words(progress: ProgressAnswer) -> str:
    """`pulling debian:12, 40%, 12Mi of 30Mi`."""
    parts = [progress.text]
    if progress.fraction is not None:
        parts.append(f"{progress.fraction:.0%}")
    if progress.done_bytes is not None:
        total = "" if progress.total_bytes is None else f" of {size_of(progress.total_bytes)}"
        parts.append(f"{size_of(progress.done_bytes)}{total}")
    return ", ".join(parts)


def size_of(size: int | None) -> str | None:
    """`1.5Gi`; None is unknown."""
    if size is None:
        return None
    amount = float(size)
    for unit in ("", "Ki", "Mi", "Gi"):
        if amount < 1024:
            return f"{amount:.3g}{unit}" if unit else str(size)
        amount /= 1024
    return f"{amount:.4g}Ti"
