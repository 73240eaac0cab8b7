"""Who changed what: the newest lines, page by page."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.model.errors import Denied
from runyard.web.page import Address, Page
from runyard.web.views.queues import may_operate

ROWS = 100


async def audit(call: Call, address: Address) -> Page:
    if not may_operate(call):
        raise Denied(
            "the audit concerns all tenants",
            cure="sign in with a token that may operate and is bound to none",
        )
    text = address.query.get("before", "")
    before = int(text) if text.isdecimal() and len(text) < 19 else None
    lines = await call.context.services.ledger.list_audit(before=before, limit=ROWS)
    values = {"lines": lines, "next": lines[-1].sequence if len(lines) == ROWS else None}
    return Page(title="Audit", template="audit.html", values=values)
