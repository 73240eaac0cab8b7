"""Statements with named parameters (`:name`), as SQLite has them, in PostgreSQL's numbered form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_NAME = re.compile(r"(?<![:\w]):([a-z]\w*)")  # not the second colon of a cast


@lru_cache(maxsize=512)
def numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """The statement with $1, $2, …, and whose values they are, in order. No string of ours holds a colon."""
    names = tuple(dict.fromkeys(_NAME.findall(sql)))
    return _NAME.sub(lambda match: f"${names.index(match[1]) + 1}", sql), names


def suffixed(sql: str, values: Mapping[str, Any], suffix: str) -> tuple[str, dict[str, Any]]:
    """The same with other names, so that it can stand beside itself in one statement."""
    renamed = {f"{name}_{suffix}": value for name, value in values.items()}
    return _NAME.sub(lambda match: f":{match[1]}_{suffix}" if match[1] in values else match[0], sql), renamed
