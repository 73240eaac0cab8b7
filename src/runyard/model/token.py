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


class TokenKind(StrEnum):
    """What a credential opens. `token`: the API. `session`: the pages, from a cookie. `link`: one sign-in, once."""

    TOKEN = "token"
    SESSION = "session"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential as the ledger holds it: only the SHA-256 of its secret. `tenants` None means all of them.
    `parent` is the id of the token that a session or link was made from: revoking that ends them too."""

    id: str
    name: str
    secret_hash: str
    scope: Scope
    tenants: tuple[str, ...] | None
    created_at: float
    expires_at: float | None = None
    kind: TokenKind = TokenKind.TOKEN
    parent: str | None = None

    def may_see(self, tenant: str) -> bool:
        return self.tenants is None or tenant in self.tenants

    def may(self, scope: Scope, tenant: str | None = None) -> bool:
        """Whether it includes `scope`, for `tenant` where one is named."""
        if not self.scope.includes(scope):
            return False
        return tenant is None or self.may_see(tenant)
