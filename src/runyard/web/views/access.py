"""Who may sign in: one's own sessions; for an administrator all credentials. And the secrets of one's tenants."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.api.routes.secrets import visible_secrets
from runyard.api.routes.tokens import covers
from runyard.model.token import Scope, Token, TokenKind
from runyard.web.page import Address, Page

ROWS = 200


async def access(call: Call, _: Address) -> Page:
    found = await call.context.services.ledger.list_tokens()
    is_admin = call.token.may(Scope.ADMIN)
    visible = [one for one in found if is_own(call, one) or (is_admin and covers(call, one.tenants))]
    visible.sort(key=lambda one: one.created_at, reverse=True)
    sessions = [one for one in visible if one.kind is TokenKind.SESSION]
    tokens = [one for one in visible if one.kind is TokenKind.TOKEN] if is_admin else []
    secrets = await visible_secrets(call)
    values = {
        "secrets": secrets[:ROWS],
        "unreadable": {
            (one.tenant, one.name)
            for one in secrets[:ROWS]
            if not call.context.services.secrets.is_readable(one)
        },
        "secrets_beyond": max(0, len(secrets) - ROWS),
        "may_set_secrets": call.token.may(Scope.OPERATE),
        "sessions": sessions[:ROWS],
        "tokens": tokens[:ROWS],
        "beyond": max(0, len(sessions) - ROWS) + max(0, len(tokens) - ROWS),
        "is_admin": is_admin,
        "scopes": [scope.value for scope in Scope],
    }
    return Page(title="Access", template="access.html", values=values, is_personal=True)


def is_own(call: Call, other: Token) -> bool:
    """A session that was made from the same token as the one that asks."""
    if other.kind is not TokenKind.SESSION:
        return False
    return other.id == call.token.id or (call.token.parent is not None and other.parent == call.token.parent)
