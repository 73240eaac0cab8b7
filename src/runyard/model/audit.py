"""Who changed what: one line for each change that an operator or user asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """`actor` is the credential's name and `actor_id` its id; `origin` is the address it asked from; `action` is a verb
    (`pause`), `subject` what it changed (`queue default`). `sequence` is given by the ledger, growing."""

    at: float
    actor: str
    actor_id: str
    origin: str
    action: str
    subject: str
    details: Mapping[str, str] = field(default_factory=dict)
    sequence: int = 0
