"""The `docker` provider keeps the port's promises, with a real dockerd behind a wire that can be cut."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runyard.model.attempt import AttemptKey
from runyard.providers.docker import DockerProvider, create_provider
from runyard.providers.port import Provider, ProviderConfig
from runyard.testing.conformance import FarProviderConformance, FarProviderWorld
from runyard.testing.tiny_commands import SAID
from tests.docker_daemon import IMAGE, DockerDaemon, docker_daemon, why_missing
from tests.docker_wire import DockerWire

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(why_missing() is not None, reason=why_missing() or ""),
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[DockerDaemon]:
    with docker_daemon() as started:
        started.import_busybox()
        yield started


class DockerWorld(FarProviderWorld):
    def __init__(self, folder: Path, daemon: DockerDaemon, wire: DockerWire) -> None:
        super().__init__(folder)
        self._daemon = daemon
        self._wire = wire
        self._providers: list[DockerProvider] = []

    async def start_provider(self) -> DockerProvider:
        config = ProviderConfig(
            pool="docker",
            installation="conformance",  # one for all, whose pauses are made once
            data_directory=self.folder / "pool",
            slots=2,
            options={"host": self._wire.address, "image": IMAGE, "kill_grace": 0.3},
        )
        provider = create_provider(config)
        await provider.start()
        self._providers.append(provider)
        return provider

    async def kill_place(self, key: AttemptKey) -> None:
        self._daemon.run("rm", "--force", f"{key.resource_name}-s0")

    def count_starts(self, key: AttemptKey) -> int:
        return self._logs[key].streams.get(("000", "stdout"), b"").count(SAID)

    def cut_off(self, provider: Provider) -> contextlib.AbstractAsyncContextManager[None]:
        return self._wire.cut()

    async def lose_next_start_reply(self, provider: Provider) -> None:
        self._wire.lose_reply(rb"POST /v[\d.]+/containers/[^/ ]+-s0/start")

    async def refuse_next_start(self, provider: Provider) -> None:
        self._wire.refuse(rb"POST /v[\d.]+/containers/[^/ ]+-s0/start", "no space left on device")

    async def close(self) -> None:
        for provider in self._providers:
            await provider.close()
        for kind, remove in (("ps", ("rm", "--force", "--volumes")), ("volume ls", ("volume", "rm"))):
            listing = ("--all",) if kind == "ps" else ()
            found = self._daemon.run(*kind.split(), *listing, "--quiet", "--filter", f"name={self.uid}")
            if found.stdout:
                self._daemon.run(*remove, *found.stdout.decode().split())


class TestDockerProvider(FarProviderConformance):
    @pytest.fixture
    async def world(self, tmp_path: Path, daemon: DockerDaemon) -> AsyncIterator[DockerWorld]:
        async with DockerWire.to(daemon.socket) as wire:
            world = DockerWorld(tmp_path, daemon, wire)
            yield world
            await world.close()
