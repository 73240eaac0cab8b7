"""A pool's own keys in the config file: a table of them is read whole, so that every wrong one is told at once.

Each parser takes what TOML gave and raises ValueError (or TypeError, KeyError) for what it does not take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from runyard.model.errors import ConfigError

Parser = Callable[[Any], Any]
Keys = Mapping[str, tuple[str, Parser, str]]
"""By key: the name of the value, its parser, and what is wanted, to follow `give `."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]i?)?B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


class WrongWithin(ValueError):
    """Of a value that is a whole document: `place` within it, and what is wrong there, with the cure."""

    def __init__(self, place: str, words: str) -> None:
        super().__init__(f"{place}: {words}")
        self.place = place
        self.words = words


def read_keys(
    options: Mapping[str, Any], keys: Keys, *, also_known: Iterable[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """(the values by name, what is wrong). `also_known` are keys which the caller reads itself."""
    others = frozenset(also_known)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in options.items():
        if key in others:
            continue
        if key not in keys:
            problems.append(f"{key} is not known; known are {', '.join(sorted((*keys, *others)))}")
            continue
        name, parse, wanted = keys[key]
        try:
            values[name] = parse(value)
        except WrongWithin as error:
            problems.append(f"{key}.{error.place}: {error.words}")
        except (ValueError, TypeError, KeyError):
            problems.append(f"{key} = {value!r} is wrong; give {wanted}")
    return values, problems


def refuse_wrong_keys(pool: str, problems: Iterable[str]) -> None:
    """Raises ConfigError with all of them, if there are any."""
    said = "; ".join(f"pools.{pool}.{problem}" for problem in problems)
    if said:
        raise ConfigError(
            said, field=f"pools.{pool}", cure="correct these keys of the pool in the config file"
        )


# -- values -------------------------------------------------------------------------------------------------------
def size(value: Any) -> int:
    """Bytes, from a number or a text such as `4Gi` or `500M`."""
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, int):
        if value < 0:
            raise ValueError
        return value
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError
    unit = match[2] or ""
    return int(float(match[1]) * (_BINARY.get(unit) or _UNITS[unit]))


def cores(value: Any) -> int:
    """Thousandths of a core, from `4`, `0.5` or `500m`."""
    if isinstance(value, bool):
        raise ValueError
    millis = int(value[:-1]) if isinstance(value, str) and value.endswith("m") else round(float(value) * 1000)
    if millis < 0:
        raise ValueError
    return millis


def some_cores(value: Any) -> int:
    """As `cores`, and not none."""
    millis = cores(value)
    if millis == 0:
        raise ValueError
    return millis


def whole(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return parse


def seconds(most: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise ValueError
        return float(value)

    return parse


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return parse


def texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError
    return tuple(value)


def table_of_texts(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError
    return dict(value)


def path(value: Any) -> str:
    """An absolute one."""
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError
    return value


def paths(value: Any) -> tuple[str, ...]:
    return tuple(path(each) for each in texts(value))
