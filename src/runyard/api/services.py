"""What the API is made from, and what all its requests share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from runyard.api.caching import Cache
from runyard.api.event_tail import EventTail
from runyard.api.open_bounds import OpenBounds
from runyard.artifacts.port import ArtifactStore
from runyard.ledger.port import Ledger, Subscription
from runyard.logs.port import LogStore
from runyard.model.clock import Clock
from runyard.model.pool import Pool
from runyard.model.queue import Queue
from runyard.model.token import Token
from runyard.secrets.store import SecretStore

TOKEN_TTL_S = 2.0
SETTINGS_TTL_S = 1.0
CLOSING_LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """What the composition root hands in. `is_ready` answers None, or why not; `version` is said in the description;
    `bounds` say how much may be open at once."""

    ledger: Ledger
    logs: LogStore
    artifacts: ArtifactStore
    secrets: SecretStore
    clock: Clock
    render_metrics: Callable[[], Awaitable[bytes]]
    is_ready: Callable[[], str | None]
    version: str = "0"
    bounds: OpenBounds = field(default_factory=OpenBounds)


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token and the ledger's time when it was read, so that expiry is judged by the ledger's clock."""

    token: Token
    ledger_now: float
    read_at: float

    def is_expired(self, boottime: float) -> bool:
        expires_at = self.token.expires_at
        return expires_at is not None and self.ledger_now + (boottime - self.read_at) >= expires_at


class ApiContext:
    """The services and the few things that requests share: what was just read, and the tail of the events."""

    def __init__(self, services: ApiServices) -> None:
        ledger, clock = services.ledger, services.clock
        self.services = services
        self.is_closing = False
        self.tokens = Cache[str, KnownToken | None](self._load_token, clock=clock, ttl_s=TOKEN_TTL_S)
        self.queues = Cache[str, Queue | None](ledger.get_queue, clock=clock, ttl_s=SETTINGS_TTL_S)
        self.pools = Cache[None, list[Pool]](self._load_pools, clock=clock, ttl_s=SETTINGS_TTL_S)
        self.tenants = Cache[None, tuple[str, ...]](self._load_tenants, clock=clock, ttl_s=SETTINGS_TTL_S)
        self.event_tail = EventTail(ledger)

    def close(self) -> None:
        """Ends long polls and streams within a second, so that stopping does not wait for clients."""
        self.is_closing = True

    async def wait(self, subscription: Subscription, timeout_s: float) -> None:
        """Until something fired, `timeout_s` passed or the service is closing."""
        rest_s = timeout_s
        while rest_s > 0 and not self.is_closing:
            if await subscription.wait(min(rest_s, CLOSING_LOOK_S)):
                return
            rest_s -= CLOSING_LOOK_S

    async def _load_token(self, secret_hash: str) -> KnownToken | None:
        token = await self.services.ledger.find_token(secret_hash)
        if token is None:
            return None
        read_at = self.services.clock.boottime()
        return KnownToken(token, await self.services.ledger.now(), read_at)

    async def _load_pools(self, _: None) -> list[Pool]:
        return await self.services.ledger.list_pools()

    async def _load_tenants(self, _: None) -> tuple[str, ...]:
        return tuple(tenant.settings.name for tenant in await self.services.ledger.list_tenants())
