"""Runs the cache on a listening socket of its own, in the event loop of whoever starts it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import structlog
import uvicorn

from runyard.model.clock import Clock
from runyard.model.errors import ConfigError
from runyard.registry.cache.application import CacheApplication
from runyard.registry.cache.cache import RegistryCache
from runyard.registry.cache.counters import Counters
from runyard.registry.cache.settings import CacheSettings
from runyard.registry.client import RegistryClient

STOP_GRACE_S = 5
KEEP_ALIVE_S = 75
CONNECTIONS_MAX = 1000  # each with one piece of a blob in memory

log = structlog.get_logger()


def listening_socket(listen: str) -> socket.socket:
    """Bound to host:port. Raises ConfigError where the address cannot be had."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, int(port)))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"the registry cache cannot listen on {listen}: {error.strerror}",
            field="registry_cache.listen",
            cure="stop what listens there, or choose another port",
        ) from None
    sock.listen(1024)
    return sock


@contextlib.asynccontextmanager
async def serving(
    settings: CacheSettings,
    sock: socket.socket,
    *,
    clock: Clock,
    allow_address: Callable[[str], bool],
    counters: Counters,
    render_metrics: Callable[[], bytes] | None = None,
) -> AsyncIterator[RegistryCache]:
    """Serves while the context is open. Raises ConfigError where the folder cannot be used; asks no upstream."""
    client = RegistryClient(
        allow_address=allow_address,
        plain_http_hosts=settings.plain_http_hosts,
        private_hosts=settings.private_hosts,
    )
    cache = RegistryCache(settings, client=client, clock=clock, counters=counters)
    try:
        await cache.open()
    except OSError as error:
        cache.close_disk()
        await client.close()
        raise ConfigError(
            f"cannot use the registry cache's folder {settings.directory}: {error.strerror}",
            field="registry_cache.directory",
            cure="make it writable for this user, or choose another",
        ) from None
    server = _Server(
        uvicorn.Config(
            CacheApplication(cache, render_metrics),
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_GRACE_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            limit_concurrency=CONNECTIONS_MAX,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[sock]))
    host, port = sock.getsockname()[:2]
    log.info("registry_cache_started", address=f"{host}:{port}", stored_bytes=counters.stored_bytes)
    try:
        yield cache
    finally:
        server.should_exit = True
        await cache.close()  # first: who follows a download would wait for its end
        await task
        cache.close_disk()
        await client.close()


class _Server(uvicorn.Server):
    """Without signal handlers of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
