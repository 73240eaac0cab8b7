"""Queues, tenants and tokens. A change of limits takes effect in the transaction that makes it."""

from __future__ import annotations

from runyard.ledger import refusals, rows, statements
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.queue import Queue, QueueSettings, Tenant, TenantSettings
from runyard.model.token import Token

DEFAULT_QUEUE = "default"
LIST_MAX = 10_000


async def put_queue(database: Database, settings: QueueSettings) -> Queue:
    refusals.check_weight(f"queue {settings.name!r}", settings.weight)
    document = {
        "name": settings.name,
        "weight": settings.weight,
        "running_max": settings.running_max,
        "queued_max": settings.queued_max,
        "tenant_running_max": settings.tenant_running_max,
        "defaults": rows.to_json(settings.defaults),
        "is_paused": int(settings.is_paused),
        "is_configured": int(settings.is_configured),
    }
    await database.call("put_queue", document)
    async with database.read() as snapshot:
        queue = await get_queue(snapshot, settings.name)
    if queue is None:
        raise refusals.no_queue(settings.name)  # deleted at the same moment
    return queue


async def get_queue(snapshot: Snapshot, name: str) -> Queue | None:
    row = await snapshot.row(f"{statements.QUEUE} WHERE q.name = :name", name=name)
    return None if row is None else rows.queue_of(row)


async def list_queues(snapshot: Snapshot) -> list[Queue]:
    found = await snapshot.rows(f"{statements.QUEUE} ORDER BY q.name LIMIT :limit", limit=LIST_MAX)
    return [rows.queue_of(row) for row in found]


async def delete_queue(database: Database, name: str) -> None:
    if name == DEFAULT_QUEUE:
        raise refusals.default_queue_stays()
    answer = await database.call("delete_queue", {"name": name})
    if answer.get("refused") == "no_queue":
        raise refusals.no_queue(name)
    if answer.get("refused") == "queue_busy":
        raise refusals.queue_busy(name, answer["unfinished"])


async def put_tenant(database: Database, settings: TenantSettings) -> Tenant:
    refusals.check_weight(f"tenant {settings.name!r}", settings.weight)
    document = {
        "name": settings.name,
        "weight": settings.weight,
        "running_max": settings.running_max,
        "queued_max": settings.queued_max,
        "is_configured": int(settings.is_configured),
    }
    await database.call("put_tenant", document)
    async with database.read() as snapshot:
        tenant = await get_tenant(snapshot, settings.name)
    assert tenant is not None, "a tenant is never deleted"
    return tenant


async def get_tenant(snapshot: Snapshot, name: str) -> Tenant | None:
    row = await snapshot.row("SELECT * FROM tenants WHERE name = :name", name=name)
    return None if row is None else rows.tenant_of(row)


async def list_tenants(snapshot: Snapshot) -> list[Tenant]:
    found = await snapshot.rows("SELECT * FROM tenants ORDER BY name LIMIT :limit", limit=LIST_MAX)
    return [rows.tenant_of(row) for row in found]


# -- tokens: only the hash of a secret is ever here ----------------------------------------------------------------
async def put_token(database: Database, token: Token) -> None:
    await database.execute(
        statements.PUT_TOKEN,
        id=token.id,
        name=token.name,
        secret_hash=token.secret_hash,
        scope=token.scope.value,
        tenants=None if token.tenants is None else rows.to_json(token.tenants),
        created_at=token.created_at,
        expires_at=token.expires_at,
        kind=token.kind.value,
        parent=token.parent,
    )


async def find_token(snapshot: Snapshot, secret_hash: str) -> Token | None:
    row = await snapshot.row("SELECT * FROM tokens WHERE secret_hash = :secret_hash", secret_hash=secret_hash)
    return None if row is None else rows.token_of(row)


async def list_tokens(snapshot: Snapshot) -> list[Token]:
    found = await snapshot.rows("SELECT * FROM tokens ORDER BY created_at, id LIMIT :limit", limit=LIST_MAX)
    return [rows.token_of(row) for row in found]


async def delete_token(database: Database, token_id: str) -> bool:
    both = (
        f"WITH children AS ({statements.DELETE_CHILDREN}) {statements.DELETE_TOKEN}"  # counts the token alone
    )
    return await database.execute(both, id=token_id) > 0


async def delete_expired_sessions(database: Database, *, before: float, limit: int) -> int:
    return await database.execute(statements.DELETE_EXPIRED_SESSIONS, before=before, limit=limit)
