"""The Range header: one range of bytes, as RFC 9110 has it. Anything else is read as if it were not there."""

from __future__ import annotations

import re

from runyard.api.errors import RangeNotSatisfiable

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """[begin, end) within `size`, None without a usable header. Raises RangeNotSatisfiable."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        count = int(last)
        if count == 0 or size == 0:
            raise _unsatisfiable(size)
        return max(0, size - count), size
    begin = int(first)
    if last and int(last) < begin:
        return None
    if begin >= size:
        raise _unsatisfiable(size)
    return begin, min(int(last) + 1, size) if last else size


def _unsatisfiable(size: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(f"there are {size} bytes, the range lies behind them", size=size)
