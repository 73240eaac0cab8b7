"""Durations, sizes and cores as people write them."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?")
_SIZE_FACTOR = {
    None: 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}
DURATION_S_MAX = 366 * 86400.0
SIZE_BYTES_MAX = 1 << 50
CPU_MILLIS_MAX = 1_000_000


def parse_duration(value: object) -> float:
    """Seconds of `90s`, `1h30m`, `2d` or a bare number of seconds. Raises ValueError saying what is accepted."""
    seconds = _duration_seconds(value)
    if not 0 < seconds <= DURATION_S_MAX:
        raise ValueError(f"duration {value!r} is out of range; it must be above 0 and at most 366d")
    return seconds


def _duration_seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no duration; write one like 90s, 10m or 1h30m")
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value!r} is no duration; write one like 90s, 10m or 1h30m")
        return float(value)
    match = _DURATION.fullmatch(value) if len(value) <= 40 else None
    if match is None or not any(match.groups()):
        raise ValueError(f"{value[:40]!r} is no duration; write one like 90s, 10m or 1h30m")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def format_duration(seconds: float) -> str:
    """The shortest spelling that parse_duration reads back: `1h30m`, `0.5s`."""
    parts = []
    rest = seconds
    for name, size in (("d", 86400), ("h", 3600), ("m", 60)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{int(count)}{name}")
    if rest or not parts:
        parts.append(f"{rest:g}s")
    return "".join(parts)


def parse_size(value: object) -> int:
    """Bytes of `512Mi`, `4G` or a bare number. Raises ValueError saying what is accepted."""
    cure = "write bytes, or a number with k, M, G, Ki, Mi or Gi"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is no size; {cure}")
    if isinstance(value, str):
        match = _SIZE.fullmatch(value) if len(value) <= 40 else None
        if match is None:
            raise ValueError(f"{value[:40]!r} is no size; {cure}")
        value = int(float(match[1]) * _SIZE_FACTOR[match[2]])
    if not 0 < value <= SIZE_BYTES_MAX:
        raise ValueError(f"size {value!r} is out of range; it must be above 0 and at most 1024Ti")
    return value


def parse_cpu(value: object) -> int:
    """Thousandths of a core of `2`, `0.5` or `500m`. Raises ValueError saying what is accepted."""
    cure = "write cores like 2 or 0.5, or thousandths like 500m"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no amount of cpu; {cure}")
    try:
        if isinstance(value, str) and value.endswith("m"):
            millis = float(value[:-1])
        else:
            millis = float(value) * 1000
    except ValueError:
        raise ValueError(f"{str(value)[:40]!r} is no amount of cpu; {cure}") from None
    if not math.isfinite(millis) or not 1 <= millis <= CPU_MILLIS_MAX:
        raise ValueError(f"cpu {value!r} is out of range; it must be from 1m to 1000")
    return round(millis)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": ["string", "number"], "examples": ["90s", "1h30m", 600]}),
]
"""Seconds, written as text or a number."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["512Mi", "4G", 1048576]}),
]
"""Bytes, written as text or an integer."""

CpuMillis = Annotated[
    int,
    BeforeValidator(parse_cpu),
    PlainSerializer(lambda millis: millis / 1000, return_type=float),
    WithJsonSchema({"type": ["string", "number"], "examples": ["500m", 2, 0.5]}),
]
"""Thousandths of a core, written as text or in cores; served in cores."""
