"""What a server has is looked up in its own schema, never guessed from its version."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from runyard.providers.kubernetes.cluster_facts import read_features
from tests.kubernetes.strict_server import CURRENT, OLD, Features, StrictServer
from tests.providers.kubernetes.conftest import client_of

LATE = dataclasses.replace(CURRENT, native_sidecars=False)


@pytest.mark.parametrize(("features", "has_them"), [(CURRENT, True), (LATE, False), (OLD, False)])
async def test_native_sidecars_are_in_the_servers_own_schema(
    features: Features, has_them: bool, tmp_path: Path
) -> None:
    async with StrictServer(features=features) as server:
        client = client_of(server, tmp_path)
        assert (await read_features(client)).has_native_sidecars is has_them
        await client.close()
