"""A cache on a free port, over whatever registry a test names, with a clock that the test moves."""

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from runyard.registry.cache.counters import Counters
from runyard.registry.cache.serving import serving
from runyard.registry.cache.settings import CacheSettings, Upstream


@dataclass
class HandClock:
    time: float = 1_000_000.0

    def now(self) -> float:
        return self.time

    def boottime(self) -> float:
        return self.time


@dataclass
class CacheWorld:
    """One running cache, and a client of it."""

    url: str
    http: httpx2.AsyncClient
    counters: Counters
    clock: HandClock
    port: int = 0
    hosts: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **options) -> httpx2.Response:
        return await self.http.get(f"{self.url}/v2/{path}", **options)

    async def blob(self, name: str, digest: str, **options) -> httpx2.Response:
        return await self.get(f"{name}/blobs/{digest}", **options)

    async def manifest(self, name: str, target: str, **options) -> httpx2.Response:
        return await self.get(f"{name}/manifests/{target}", **options)


def settings_of(folder: Path, *upstreams: Upstream, **more) -> CacheSettings:
    more.setdefault("default", upstreams[0].name if upstreams else None)
    return CacheSettings(folder, upstreams={one.name: one for one in upstreams}, **more)


@contextlib.asynccontextmanager
async def running_cache(settings: CacheSettings, clock: HandClock | None = None) -> AsyncIterator[CacheWorld]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    port = sock.getsockname()[1]
    clock, counters = clock or HandClock(), Counters()
    limits = httpx2.Limits(max_connections=100)
    async with (
        contextlib.AsyncExitStack() as stack,
        serving(settings, sock, clock=clock, allow_address=lambda address: False, counters=counters),
        httpx2.AsyncClient(trust_env=False, limits=limits, timeout=30) as http,
    ):
        stack.callback(sock.close)
        yield CacheWorld(f"http://127.0.0.1:{port}", http, counters, clock, port)
