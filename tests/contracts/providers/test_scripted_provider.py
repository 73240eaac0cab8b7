"""The scripted provider keeps the port's promises, so what misbehaves in a test does so because it was asked to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.model.attempt import AttemptKey
from runyard.model.errors import NoCapacity, Unreachable
from runyard.model.outcome import lost
from runyard.providers.port import Provider
from runyard.testing.conformance import FarProviderConformance, FarProviderWorld, virtual_time
from runyard.testing.misbehaviour import Verb, lost_reply, refusal
from runyard.testing.scripted_provider import ScriptedProvider, World
from runyard.testing.tiny_commands import play_of


class ScriptedWorld(FarProviderWorld):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.world = World(now=asyncio.get_running_loop().time, script=play_of)

    async def start_provider(self) -> ScriptedProvider:
        provider = ScriptedProvider(self.world)
        await provider.start()
        return provider

    async def kill_place(self, key: AttemptKey) -> None:
        self.world.end(key, lost("the place died", was_seen=True))

    def count_starts(self, key: AttemptKey) -> int:
        return self.world.starts[key.resource_name]

    @contextlib.asynccontextmanager
    async def cut_off(self, provider: Provider) -> AsyncIterator[None]:
        assert isinstance(provider, ScriptedProvider)
        provider.crash()
        try:
            yield
        finally:
            provider.recover()

    async def lose_next_start_reply(self, provider: Provider) -> None:
        assert isinstance(provider, ScriptedProvider)
        provider.faults[Verb.RUN].append(lost_reply(Unreachable("no answer")))

    async def refuse_next_start(self, provider: Provider) -> None:
        assert isinstance(provider, ScriptedProvider)
        provider.faults[Verb.RUN].append(refusal(NoCapacity("no room")))


class TestScriptedProvider(FarProviderConformance):
    @pytest.fixture
    def anyio_backend(self):
        return virtual_time

    @pytest.fixture
    async def world(self, tmp_path):
        return ScriptedWorld(tmp_path)
