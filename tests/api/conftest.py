"""The API without a socket (`service`, `admin`), and behind a real uvicorn for what streams (`listening`)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest
import uvicorn

from runyard.api.application import close_application
from tests.api.world import Service, a_service


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with a_service(tmp_path) as made:
        yield made


@pytest.fixture
async def admin(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with service.client(await service.token()) as client:
        yield client


@pytest.fixture
async def listening(service: Service) -> AsyncIterator[Callable[..., httpx2.AsyncClient]]:
    """The same API behind a real uvicorn on a free port, for what streams; makes clients."""
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # else asyncio leaves Nagle on: 40 ms an answer
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    config = uvicorn.Config(service.app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    base_url = f"http://127.0.0.1:{sock.getsockname()[1]}"

    def client(secret: str) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=20)

    yield client
    close_application(service.app)
    server.should_exit = True
    await serving
    sock.close()
