"""The far place that the journeys use keeps the port's promises: what is proven over it holds over real ones."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.model.attempt import AttemptKey
from runyard.providers.port import Provider
from runyard.testing.conformance import FarProviderConformance, FarProviderWorld
from runyard.testing.far import FarPlace
from runyard.testing.far.provider import FarProvider

pytestmark = pytest.mark.service


class Far(FarProviderWorld):
    patience_s = 0.5

    def __init__(self, folder: Path, place: FarPlace) -> None:
        super().__init__(folder)
        self.place = place

    async def start_provider(self) -> FarProvider:
        provider = FarProvider(self.place.socket)
        await provider.start()
        return provider

    async def kill_place(self, key: AttemptKey) -> None:
        self.place.kill(key.resource_name)

    def count_starts(self, key: AttemptKey) -> int:
        return self.place.starts().get(key.resource_name, 0)

    @contextlib.asynccontextmanager
    async def cut_off(self, provider: Provider) -> AsyncIterator[None]:
        with self.place.unreachable():
            yield

    async def lose_next_start_reply(self, provider: Provider) -> None:
        self.place.lose_next_reply()

    async def refuse_next_start(self, provider: Provider) -> None:
        self.place.refuse_next()


class TestFarProvider(FarProviderConformance):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[Far]:
        (tmp_path / "place").mkdir()
        with FarPlace(tmp_path / "place") as place:
            yield Far(tmp_path, place)
