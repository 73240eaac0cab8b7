"""Each contract test runs on the strict server, and on a real cluster where one is given."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kubernetes.contract_worlds import KUBECONFIG_VARIABLE, World, real_world, strict_world


@pytest.fixture(params=["strict", pytest.param("real", marks=pytest.mark.service)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "strict":
        async with strict_world(tmp_path) as world:
            yield world
        return
    kubeconfig = os.environ.get(KUBECONFIG_VARIABLE)
    if not kubeconfig:
        pytest.skip(f"no cluster: {KUBECONFIG_VARIABLE} names the kubeconfig of one (docs/contributing.md)")
    async with real_world(kubeconfig) as world:
        yield world
