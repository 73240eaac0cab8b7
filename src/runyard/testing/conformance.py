"""The suite that every provider passes: one test for each promise of the port, named as the promise.

    class TestMyProvider(ProviderConformance):
        @pytest.fixture
        async def world(self, tmp_path):
            world = MyWorld(tmp_path)   # a ProviderWorld: how to start the provider, kill a place, count starts
            yield world
            await world.close()

It needs pytest with anyio's plugin in its auto mode (`anyio_mode = "auto"`). Providers whose places are reached over a
network subclass FarProviderConformance with a FarProviderWorld. One that only plays its places can run on virtual
time: `virtual_time` as its `anyio_backend`.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.register_assert_rewrite("runyard.testing.promises")

from runyard.testing.promises.answering import AnsweringPromises  # noqa: E402
from runyard.testing.promises.far import FarPromises  # noqa: E402
from runyard.testing.promises.resources import ResourcePromises  # noqa: E402
from runyard.testing.promises.starting import StartingPromises  # noqa: E402
from runyard.testing.promises.stopping import StoppingPromises  # noqa: E402
from runyard.testing.promises.world import FarProviderWorld, ProviderWorld  # noqa: E402
from runyard.testing.tiny_commands import TinyCommand  # noqa: E402
from runyard.testing.virtual_time import VirtualTimeLoop  # noqa: E402

__all__ = [
    "FarProviderConformance",
    "FarProviderWorld",
    "ProviderConformance",
    "ProviderWorld",
    "TinyCommand",
    "virtual_time",
]


class ProviderConformance(StartingPromises, StoppingPromises, ResourcePromises, AnsweringPromises):
    """Subclass it with a fixture `world`."""


class FarProviderConformance(ProviderConformance, FarPromises):
    """Subclass it with a fixture `world` that is a FarProviderWorld."""


virtual_time: tuple[str, dict[str, Any]] = ("asyncio", {"loop_factory": VirtualTimeLoop})
"""An anyio backend on which an hour takes a moment; for places that exist in this process only."""
