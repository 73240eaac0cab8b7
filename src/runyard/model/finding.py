"""One thing that was looked at, whether it is as it should be, and what to do if not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`cure` is a command or a setting, empty where nothing is wrong."""

    name: str
    ok: bool
    message: str
    cure: str = ""
