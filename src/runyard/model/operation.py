"""A request that only the owner of a pool can answer: the API writes it, the owner fulfils it, the API reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class OperationKind(StrEnum):
    CHECK_POOL = "check_pool"
    FORGET_POOL = "forget_pool"
    PRUNE = "prune"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`result` is None until the owner answered; it is then a JSON document."""

    id: str
    pool: str
    kind: OperationKind
    arguments: Mapping[str, Any] = field(default_factory=dict)
    requested_at: float = 0.0
    finished_at: float | None = None
    result: Mapping[str, Any] | None = None
