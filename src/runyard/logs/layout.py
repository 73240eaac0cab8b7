"""How an attempt's log lies on disk: the one place that writer (the shim) and readers agree on.

A directory per attempt, `<root>/<uid>/<number>/`; in it one plain file per stream, named `<step>.<stream>`, where
`<step>` is the step's index from 0 in three digits, `setup` for what was printed while the workspace was made, or a
service's index after an `s`.
A byte's offset in the file is its offset in the stream, always. Beyond the attempt's bound the middle is cut: the
file keeps its length but has a hole, and `<step>.<stream>.cut` holds the two offsets of the hole in decimal.
Imported by the shim, so it needs the standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path

STREAMS = ("stdout", "stderr")
SETUP = "setup"
CUT_SUFFIX = ".cut"
KEY_PATTERN = rf"\d{{3,}}|s\d{{3,}}|{SETUP}"


def attempt_directory(root: Path, uid: str, number: int) -> Path:
    return root / uid / str(number)


def step_key(index: int) -> str:
    return f"{index:03d}"


def service_key(index: int) -> str:
    return f"s{index:03d}"


def is_service(step: str) -> bool:
    return step != SETUP and step.startswith("s")


def rank(step: str) -> int:
    """In what order logs are listed: setup, the services, the steps."""
    if step == SETUP:
        return -1_000_000
    return int(step[1:]) - 900_000 if is_service(step) else int(step)


def stream_file(directory: Path, step: str, stream: str) -> Path:
    return directory / f"{step}.{stream}"


def read_cut(file: Path) -> tuple[int, int] | None:
    """The [from, to) that was cut out of this stream file, or None."""
    try:
        begin, end = (file.parent / (file.name + CUT_SUFFIX)).read_text().split()
    except FileNotFoundError:
        return None
    return int(begin), int(end)


def write_cut(file: Path, begin: int, end: int) -> None:
    """Records a cut; the reader sees the old one or the new one, never half."""
    target = file.parent / (file.name + CUT_SUFFIX)
    temporary = target.with_suffix(".new")
    temporary.write_text(f"{begin} {end}\n")
    os.replace(temporary, target)
