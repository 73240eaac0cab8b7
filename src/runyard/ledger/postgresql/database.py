"""The connections of one service: a short pool for writes, one for reads (a long listing never holds up a claim), and
the listener. A write is one call of a stored function, a transaction by itself: no lock is held between round trips."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping
from enum import Enum
from typing import Any

import asyncpg
import msgspec

from runyard.ledger.migrations import Migration, list_migrations
from runyard.ledger.postgresql import migrating
from runyard.ledger.postgresql.address import Address
from runyard.ledger.postgresql.faults import RETRIED, is_unavailable, sqlstate_of, unavailable
from runyard.ledger.postgresql.listener import Listener
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.ledger.subscriptions import Hub
from runyard.model.clock import Clock
from runyard.model.errors import LedgerUnavailable

CONNECT_S = 10.0
STATEMENT_S = 30
LOCK_S = 10
RETRIES_MAX = 10
RETRY_S = 0.002  # doubled each time: some two seconds in all

# The indexes are made for the statements, whatever the statistics of the moment say, so each is planned once.
_SETTINGS = {
    "application_name": "runyard",
    "statement_timeout": f"{STATEMENT_S}s",
    "lock_timeout": f"{LOCK_S}s",
    "idle_in_transaction_session_timeout": f"{STATEMENT_S}s",
    "tcp_user_timeout": f"{STATEMENT_S}s",  # of a client that was stopped: its session's locks go with it
    "client_min_messages": "warning",
    "timezone": "UTC",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
}


class Role(Enum):
    """What a connection is kept for."""

    WRITE = "write"
    READ = "read"


_CONNECTIONS_MAX = {Role.WRITE: 4, Role.READ: 4}


class Database:
    """`clock` replaces the database's own, for tests."""

    def __init__(
        self,
        address: Address,
        *,
        hub: Hub,
        clock: Clock | None = None,
        migrations: tuple[Migration, ...] | None = None,
    ) -> None:
        self.where = address.where
        self._url = address.url
        self._hub = hub
        self._clock = clock
        self._migrations = migrations if migrations is not None else list_migrations("postgresql")
        self._sender = secrets.token_hex(8)
        self._settings = _SETTINGS
        self._pools: dict[Role, Any] = {}
        self._listener: Listener | None = None
        self._calls: set[asyncio.Task[Any]] = set()

    # -- life -----------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        if self._pools:
            return
        try:
            async with self.translating():
                self._settings = _SETTINGS | {"search_path": await self._prepare()}
                for role, size in _CONNECTIONS_MAX.items():
                    self._pools[role] = await self._create_pool(size)
                self._listener = Listener(
                    self._connect_to_stay, hub=self._hub, sender=self._sender, where=self.where
                )
                await self._listener.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None
        await asyncio.gather(*self._calls, return_exceptions=True)
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            try:
                async with asyncio.timeout(CONNECT_S):
                    await pool.close()
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()  # the server does not answer: nothing is lost by leaving without a word

    async def _prepare(self) -> str:
        """Migrates, without a time limit: another service may be at it."""
        connection = await self.connect(_SETTINGS | {"statement_timeout": "0", "lock_timeout": "0"})
        try:
            return await migrating.prepare(connection, self._migrations, where=self.where)
        finally:
            connection.terminate()

    async def connect(self, settings: Mapping[str, str] | None = None) -> asyncpg.Connection:
        """A connection beside the pools, on the loop that calls. It is the caller's."""
        connection: asyncpg.Connection = await asyncpg.connect(
            self._url, timeout=CONNECT_S, server_settings=dict(settings or self._settings)
        )
        return connection

    async def _connect_to_stay(self) -> asyncpg.Connection:
        """The session that is there for as long as this service is."""
        connection = await self.connect()
        try:
            await migrating.announce(connection, self._migrations, where=self.where)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _create_pool(self, size: int) -> Any:
        return await asyncpg.create_pool(
            self._url,
            min_size=1,
            max_size=size,
            timeout=CONNECT_S,
            command_timeout=STATEMENT_S + CONNECT_S,
            server_settings=self._settings,
            reset=_keep_as_it_is,
        )

    # -- writes ---------------------------------------------------------------------------------------------------
    async def call(
        self, function: str, document: Mapping[str, Any], *, role: Role = Role.WRITE
    ) -> dict[str, Any]:
        """What the stored function answered, once it is committed and its topics are fired. A caller that is cancelled
        is not waited for; what it asked for is done all the same, and told."""
        task = asyncio.create_task(self._call(function, document, role))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return await asyncio.shield(task)

    async def _call(self, function: str, document: Mapping[str, Any], role: Role) -> dict[str, Any]:
        text = msgspec.json.encode({**document, "at": self.at(), "sender": self._sender}).decode()
        async with self.translating():
            answer: dict[str, Any] = msgspec.json.decode(await self._call_repeated(function, text, role))
        self._hub.fire(answer.get("topics", ()))
        return answer

    async def _call_repeated(self, function: str, text: str, role: Role) -> str:
        for turn in range(RETRIES_MAX):
            try:
                return str(await self._pool(role).fetchval(f"SELECT {function}($1::jsonb)", text))
            except asyncpg.PostgresError as error:
                if sqlstate_of(error) not in RETRIED:
                    raise
            await asyncio.sleep(RETRY_S * 2**turn)
        raise LedgerUnavailable(
            f"ledger {self.where}: {function} met other writers {RETRIES_MAX} times in a row",
            cure="it is repeated by itself; if it stays, look for long transactions in pg_stat_activity",
        )

    async def execute(self, sql: str, **values: Any) -> int:
        """A write that is one statement and tells nobody. Returns the number of rows that changed."""
        async with self.translating():
            return await Snapshot(self._pool(Role.WRITE), self.at()).execute(sql, **values)

    # -- reads ----------------------------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Snapshot]:
        """For one statement: it is a snapshot by itself."""
        async with self.translating():
            yield Snapshot(self._pool(Role.READ), self.at())

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """For several statements that must agree."""
        async with (
            self.translating(),
            self._pool(Role.READ).acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield Snapshot(connection, self.at())

    def at(self) -> float | None:
        """The moment that replaces the database's own; None: there is none."""
        return None if self._clock is None else self._clock.now()

    def _pool(self, role: Role) -> Any:
        pool = self._pools.get(role)
        if pool is None:
            raise LedgerUnavailable(f"ledger {self.where}: it is not open", cure="open it first")
        return pool

    @contextlib.asynccontextmanager
    async def translating(self) -> AsyncIterator[None]:
        """Turns what the driver raises into LedgerUnavailable, where it is that."""
        try:
            yield
        except Exception as error:
            if isinstance(error, LedgerUnavailable) or not is_unavailable(error):
                raise
            raise unavailable(self.where, error) from error


async def _keep_as_it_is(_connection: Any) -> None:
    """Nothing of ours changes a session, so nothing is reset: one round trip less for each call."""
