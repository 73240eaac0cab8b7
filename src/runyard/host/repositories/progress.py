"""How far git says it is, read from what it prints to stderr with `--progress`."""

from __future__ import annotations

import re

from runyard.host.setup import Progress

_LINE = re.compile(
    r"(?:remote: )?(?P<what>[A-Z][a-z]+ (?:objects|deltas|files)): +(?P<percent>\d{1,3})% \(\d+/\d+\)"
    r"(?:, (?P<size>[0-9.]+) (?P<unit>bytes|KiB|MiB|GiB))?.*"
)
_COUNTING = re.compile(r"(?:remote: )?[A-Z][a-z]+ objects: \d+.*")
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def read_progress(line: str) -> Progress | None:
    """None for a line that is no progress."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    size = None if match["size"] is None else int(float(match["size"]) * _UNITS[match["unit"]])
    return Progress(
        text=match["what"].lower(), fraction=min(int(match["percent"]), 100) / 100, done_bytes=size
    )


def is_progress(line: str) -> bool:
    return _LINE.fullmatch(line.strip()) is not None or _COUNTING.fullmatch(line.strip()) is not None
