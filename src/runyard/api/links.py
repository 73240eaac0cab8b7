"""One-time links: a sign-in to the pages without handing a token over."""

from __future__ import annotations

from dataclasses import dataclass

from runyard.api.secret import hash_secret, new_secret, new_uid
from runyard.ledger.port import Ledger
from runyard.model.token import Token, TokenKind

LINK_S = 600.0


@dataclass(frozen=True, slots=True)
class Link:
    """`path` begins with `/` and holds the secret: it is shown once and never logged."""

    path: str
    expires_in: float


async def new_link(ledger: Ledger, token: Token) -> Link:
    """A link with the rights of `token`, which ends with it."""
    code = new_secret()
    now = await ledger.now()
    await ledger.put_token(
        Token(
            id=new_uid(),
            name=f"sign-in link of {token.name}",
            secret_hash=hash_secret(code),
            scope=token.scope,
            tenants=token.tenants,
            created_at=now,
            expires_at=now + LINK_S,
            kind=TokenKind.LINK,
            parent=token.id,
        )
    )
    return Link(f"/sign-in?code={code}", LINK_S)
