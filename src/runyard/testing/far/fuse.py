"""Fuses: named points in a service's work at which a test stops it, there and then, by a signal from itself to itself.

A file arms one fuse: `{"point": "created", "signal": 19}`. Whichever service passes that point first burns it (by
renaming the file, so it is one) and leaves its pid in `<file>.burnt` before it stops.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Any


class Point(StrEnum):
    """In the order in which an attempt passes them."""

    BEFORE_CLAIM = "before_claim"
    AFTER_CLAIM = "after_claim"
    BEFORE_CREATE = "before_create"
    CREATED = "created"
    FOLLOWING = "following"
    ENDED = "ended"
    BEFORE_SETTLE = "before_settle"
    AFTER_SETTLE = "after_settle"


class Fuse:
    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def _burnt(self) -> Path:
        return self._file.with_suffix(".burnt")

    def arm(self, point: Point, how: signal.Signals) -> None:
        """Called by the test."""
        self._burnt.unlink(missing_ok=True)
        whole = self._file.with_suffix(".new")
        whole.write_text(json.dumps({"point": point, "signal": int(how)}))
        whole.rename(self._file)

    def burnt_by(self) -> int | None:
        """The pid of the service that was stopped; None while none was."""
        try:
            return int(self._burnt.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def pass_(self, point: Point) -> None:
        """Called by the service."""
        try:
            armed = json.loads(self._file.read_text())
            if armed["point"] != point:
                return
            mine = self._file.with_suffix(f".{os.getpid()}")
            self._file.rename(mine)
        except FileNotFoundError:
            return  # not armed, or another was first
        mine.write_text(str(os.getpid()))
        mine.rename(self._burnt)
        os.kill(os.getpid(), armed["signal"])


def lay_around(ledger: type[Any], fuse: Fuse) -> None:
    """Fuses right before and right after its claim and settle: no provider's call stands there."""
    if not hasattr(ledger.claim, "is_fused"):
        ledger.claim = _fused(ledger.claim, fuse, Point.BEFORE_CLAIM, Point.AFTER_CLAIM)
        ledger.settle = _fused(ledger.settle, fuse, Point.BEFORE_SETTLE, Point.AFTER_SETTLE)


def _fused(
    call: Callable[..., Awaitable[Any]], fuse: Fuse, before: Point, after: Point
) -> Callable[..., Awaitable[Any]]:
    async def fused(*arguments: Any, **named: Any) -> Any:
        fuse.pass_(before)
        answer = await call(*arguments, **named)
        if answer:  # an empty claim is none
            fuse.pass_(after)
        return answer

    fused.is_fused = True  # type: ignore[attr-defined]
    return fused
