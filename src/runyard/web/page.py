"""What a page is: where it lies, what it shows, and which changes make it look different."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import QueryParams

from runyard.api.access import Call


@dataclass(frozen=True, slots=True)
class Address:
    """A page's address, taken apart: the names in its path, and its query."""

    names: Mapping[str, str]
    query: QueryParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`template` and its `values`; `topics` of the ledger whose changes it shows. The timer stands behind them. What
    `is_personal` depends on who looks, beyond the rights: it is never shared between viewers, and does not move."""

    title: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    topics: tuple[str, ...] = ("events",)
    is_personal: bool = False


View = Callable[[Call, Address], Awaitable[Page]]
"""Reads what the page shows. Raises the API's errors, which become pages of their own."""
