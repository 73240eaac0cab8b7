"""The pages over the API's own test service, looked at as a browser looks: with a cookie."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.api.world import Service, a_service
from tests.web.browsing import signed_in


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with a_service(tmp_path) as made:
        yield made


@pytest.fixture
async def pages(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """Signed in as an administrator."""
    async with service.client(None) as client:
        await signed_in(client, await service.token())
        yield client


@pytest.fixture
async def api(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with service.client(await service.token()) as client:
        yield client
