"""One dockerd for all tests of the provider, and what runs a job through it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runyard.model.attempt import UID_LENGTH, AttemptKey
from runyard.model.job import JobSpec, Step
from runyard.model.outcome import Outcome
from runyard.providers.docker import DockerProvider, create_provider
from runyard.providers.port import AttemptRequest, ProviderConfig
from runyard.testing.memory_context import MemoryContext
from tests.docker_daemon import IMAGE, DockerDaemon, docker_daemon, why_missing


@pytest.fixture(scope="session")
def dockerd() -> Iterator[DockerDaemon]:
    if why := why_missing():
        pytest.skip(why)
    with docker_daemon() as daemon:
        daemon.import_busybox()
        daemon.import_busybox("runyard-test/other:1", "ENV FLAVOUR=sweet", "USER 4242:4243")
        yield daemon


class Pool:
    """A started provider, and the attempts that were run in it."""

    def __init__(self, provider: DockerProvider, folder: Path) -> None:
        self.provider = provider
        self.folder = folder
        self.made: list[AttemptKey] = []
        self._is_closed = False

    def request(self, *steps: Step | str, slot: int = 0, **spec: Any) -> AttemptRequest:
        """A step that is a text is a shell command."""
        made = tuple(
            each if isinstance(each, Step) else Step(name=f"step-{index}", command=("/bin/sh", "-c", each))
            for index, each in enumerate(steps)
        )
        key = AttemptKey(secrets.token_hex(UID_LENGTH // 2), 1)
        self.made.append(key)
        return AttemptRequest(key=key, job_id="job", spec=JobSpec(steps=made, **spec), slot=slot, epoch=1)

    async def run(self, *steps: Step | str, **spec: Any) -> tuple[Outcome, MemoryContext]:
        request = self.request(*steps, **spec)
        context = MemoryContext(self.folder)
        return await self.provider.run_job(request, context), context

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for key in self.made:
            await self.provider.destroy_resource(key.resource_name)
        await self.provider.close()


OpenPool = Callable[..., Awaitable[Pool]]


@pytest.fixture
async def open_pool(dockerd: DockerDaemon, tmp_path: Path) -> AsyncIterator[OpenPool]:
    pools: list[Pool] = []

    async def open_pool(**options: Any) -> Pool:
        config = ProviderConfig(
            pool="docker",
            installation="tests",
            data_directory=tmp_path / "pool",
            slots=1,
            options={"host": dockerd.address, "image": IMAGE, "kill_grace": 0.3, **options},
        )
        provider = create_provider(config)
        await provider.start()
        pools.append(Pool(provider, tmp_path))
        return pools[-1]

    yield open_pool
    for pool in pools:
        await pool.close()


@pytest.fixture
async def pool(open_pool: OpenPool) -> Pool:
    return await open_pool(local_images=["runyard-test/other:1"])
