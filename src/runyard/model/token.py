"""Who may ask for what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """`admin` includes all; `operate` includes submit and read; `submit` includes read."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential as the ledger holds it: only the SHA-256 of its secret. `tenants` None means all of them."""

    id: str
    name: str
    secret_hash: str
    scope: Scope
    tenants: tuple[str, ...] | None
    created_at: float
    expires_at: float | None = None

    def may(self, scope: Scope, tenant: str | None = None) -> bool:
        """Whether it includes `scope`, for `tenant` where one is named."""
        if not self.scope.includes(scope):
            return False
        return tenant is None or self.tenants is None or tenant in self.tenants
