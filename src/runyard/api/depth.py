"""How deep a document may be nested: far beyond any job, far within every recursion."""

from __future__ import annotations

from typing import Any, NoReturn

from runyard.model.errors import Invalid

DEPTH_MAX = 40


def is_too_deep(value: Any) -> bool:
    """Level by level, so that it needs no depth itself."""
    level = [value]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return False
        level = below
    return any(isinstance(item, dict | list) for item in level)


def refuse_depth() -> NoReturn:
    raise Invalid(f"the document is nested more than {DEPTH_MAX} deep", field="body", cure="write it flatter")
