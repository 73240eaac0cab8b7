"""The `local` provider keeps the port's promises: real sandboxes, real processes, on this host."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runyard.host.attempt_directory import AttemptDirectory
from runyard.logs.layout import step_key, stream_file
from runyard.model.attempt import AttemptKey
from runyard.providers.local import LocalProvider, create_provider
from runyard.providers.port import ProviderConfig
from runyard.testing.conformance import ProviderConformance, ProviderWorld

pytestmark = pytest.mark.service


class LocalWorld(ProviderWorld):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._providers: list[LocalProvider] = []
        self._pool = folder / "pool"

    async def start_provider(self) -> LocalProvider:
        config = ProviderConfig(
            pool="local",
            installation="conformance",
            data_directory=self._pool,
            slots=4,
            options={"uid_base": 731_700_000, "kill_grace": 0.3},
        )
        provider = create_provider(config)
        await provider.start()
        self._providers.append(provider)
        return provider

    async def kill_place(self, key: AttemptKey) -> None:
        pid = AttemptDirectory(self._pool / "attempts" / key.resource_name).shim_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def count_starts(self, key: AttemptKey) -> int:
        log = stream_file(self.folder / key.resource_name / "log", step_key(0), "stdout")
        return log.read_text().count("began\n") if log.exists() else 0

    async def close(self) -> None:
        if self._providers:
            last = self._providers[-1]
            for resource in (await last.list_resources()).resources:
                await last.destroy_resource(resource.name)
        for provider in self._providers:
            await provider.close()


class TestLocalProvider(ProviderConformance):
    @pytest.fixture
    async def world(self, tmp_path):
        world = LocalWorld(tmp_path)
        yield world
        await world.close()
