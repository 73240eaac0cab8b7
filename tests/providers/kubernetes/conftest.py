"""A strict API server for each test, and a client that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.providers.kubernetes.client import KubernetesClient
from runyard.providers.kubernetes.cluster_access import reach_cluster
from tests.kubernetes.strict_server import StrictServer


def client_of(server: StrictServer, folder: Path) -> KubernetesClient:
    path = server.write_kubeconfig(folder / "kubeconfig")
    access = reach_cluster(kubeconfig=str(path), context=None, field="pools.k.kubeconfig")
    return KubernetesClient(access.http, namespace=access.namespace)


@pytest.fixture
async def server() -> AsyncIterator[StrictServer]:
    async with StrictServer() as running:
        yield running


@pytest.fixture
async def client(server: StrictServer, tmp_path: Path) -> AsyncIterator[KubernetesClient]:
    connected = client_of(server, tmp_path)
    yield connected
    await connected.close()
