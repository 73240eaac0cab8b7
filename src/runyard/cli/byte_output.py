"""A job's bytes on our own stdout and stderr: exactly those, at once."""

from __future__ import annotations

import contextlib
import os
import sys

from runyard.sdk.following import LogGap

_DESCRIPTORS = {"stdout": 1, "stderr": 2}


def prepare_output() -> None:
    """Windows would turn every LF into CRLF."""
    if sys.platform == "win32":
        import msvcrt

        for descriptor in _DESCRIPTORS.values():
            msvcrt.setmode(descriptor, os.O_BINARY)


def write_bytes(stream: str, data: bytes) -> None:
    """Raises BrokenPipeError when nobody reads that stream any more."""
    view = memoryview(data)
    descriptor = _DESCRIPTORS[stream]
    while view:
        view = view[_write_some(descriptor, view) :]


def _write_some(descriptor: int, view: memoryview) -> int:
    try:
        return os.write(descriptor, view)
    except BlockingIOError:
        # The terminal was left non-blocking by someone before us.
        with contextlib.suppress(OSError, AttributeError):
            os.set_blocking(descriptor, True)
        return 0


def gap_words(gap: LogGap) -> str:
    """What to say where bytes are missing."""
    missing = gap.to - gap.offset
    cause = "cut: the log reached its bound" if gap.is_cut else "lost"
    return f"{missing} bytes of step '{gap.step}' {gap.stream} are {cause}"
