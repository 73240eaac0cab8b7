"""A PostgreSQL of its own to measure on: durable, as in production, with its defaults; gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from runyard.testing.postgres_server import NO_SERVER, PostgresServer, find_binaries

_DURABLE = {"fsync": "on", "full_page_writes": "on", "max_wal_size": "1GB", "shared_buffers": "128MB"}


@contextlib.asynccontextmanager
async def throwaway_postgres() -> AsyncIterator[PostgresServer]:
    """A started server with a template. Raises RuntimeError naming the package where there are no binaries."""
    binaries = find_binaries()
    if binaries is None:
        raise RuntimeError(NO_SERVER)
    server = await asyncio.to_thread(PostgresServer, binaries, **_DURABLE)
    try:
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.make_template)
        yield server
    finally:
        await asyncio.to_thread(server.remove)
