"""The Role of deploy/kubernetes is enough, nothing of it is too much, and a check names each verb that is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.providers.kubernetes import cluster_facts
from runyard.providers.kubernetes import provider as provider_module
from runyard.providers.kubernetes.provider import KubernetesProvider
from runyard.providers.port import AttemptRequest
from runyard.testing.conformance import FarProviderConformance  # noqa: F401 -- first, for pytest rewrites it
from runyard.testing.promises.world import Following
from tests.kubernetes.strict_server import kubelet
from tests.kubernetes.strict_server.resources import PODS, QUOTAS
from tests.providers.kubernetes import the_role
from tests.providers.kubernetes.world import UNCLOSED, StrictWorld, bundle, strict_world

pytestmark = [pytest.mark.service, UNCLOSED]
OF_THE_WHOLE_CLUSTER = {("", "nodes", "list"), ("node.k8s.io", "runtimeclasses", "get")}
TOKEN = "of-the-service-account"
POD = {
    "metadata": {"name": "runyard-0", "labels": {"job-name": "none"}},
    "spec": {"containers": [{"name": "runyard", "image": "example.test/runyard:1"}]},
}


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StrictWorld]:
    """With the token of our account. The measured times are for tests of time."""
    monkeypatch.setattr(kubelet, "CREATING_S", 0.02)
    monkeypatch.setattr(kubelet, "INIT_GAP_S", 0.02)
    monkeypatch.setattr(cluster_facts, "EVENTS_S", 0.05)
    monkeypatch.setattr(cluster_facts, "QUIET_S", 0.0)
    monkeypatch.setattr(provider_module, "START_S", 0.5)
    async with strict_world(tmp_path) as made:
        made.options["kubeconfig"] = str(made.server.write_kubeconfig(tmp_path / "ours", TOKEN))
        yield made


async def test_the_role_is_enough_for_all_a_pool_does_and_nothing_of_it_is_too_much(
    world: StrictWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = world.server.access.grant(TOKEN, "runyard", the_role.rules(), "default")
    world.server.cluster.create(PODS, "default", POD)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("HOSTNAME", "runyard-0")
    del world.options["image"]  # that of its own pod

    def leave(request: AttemptRequest) -> None:
        world.programs.left[request.key.resource_name] = bundle({"kept": b"kept"}, {})

    heir = await the_role.live_a_whole_life(world, await world.start_provider(), leave)
    assert isinstance(heir, KubernetesProvider)
    await wait_for_a_quota(world, heir)

    assert account.refused <= OF_THE_WHOLE_CLUSTER
    assert account.unused() == set()


@pytest.mark.parametrize("words", the_role.verbs())
async def test_a_check_names_the_verb_that_is_missing(world: StrictWorld, words: str) -> None:
    world.server.access.grant(TOKEN, "runyard", the_role.rules_without(words), "default")
    provider = await world.start_provider()
    [rights] = [finding for finding in await provider.check() if finding.name == "rights"]
    assert words in rights.message
    assert rights.ok == (words in ("list events", "list resourcequotas"))
    assert rights.ok or rights.cure


async def wait_for_a_quota(world: StrictWorld, provider: KubernetesProvider) -> None:
    """Until its events were asked why a Job has no pod."""
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    world.server.cluster.create(QUOTAS, "default", quota)
    followed = Following(world, provider, world.request(number=5))
    async with asyncio.timeout(15):
        while not any("/events" in request for request in world.server.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await followed.let_go()
