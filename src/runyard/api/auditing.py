"""The audit line of a change: written once it was made, in the ledger and in the service's log."""

from __future__ import annotations

import structlog
from pydantic import BaseModel

from runyard.api.access import Call
from runyard.model.audit import AuditLine

DETAIL_LENGTH_MAX = 500

_log = structlog.get_logger()


async def audit(call: Call, action: str, subject: str, **details: str) -> None:
    """`action` is a verb, `subject` what it changed: `pause`, `queue default`."""
    client = call.request.client
    ledger = call.context.services.ledger
    line = AuditLine(
        at=await ledger.now(),
        actor=call.token.name,
        actor_id=call.token.id,
        origin=client.host if client else "",
        action=action,
        subject=subject,
        details=details,
    )
    await ledger.add_audit_line(line)
    _log.info("audit", actor=line.actor, origin=line.origin, action=action, subject=subject, **details)


def changes(wish: BaseModel) -> dict[str, str]:
    """What was asked for, as the details of a line."""
    return {
        key: f"{value}"[:DETAIL_LENGTH_MAX] for key, value in wish.model_dump(exclude_defaults=True).items()
    }
