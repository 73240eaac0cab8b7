"""The provider keeps the port's promises over the strict server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.model.errors import QuotaExceeded
from runyard.model.outcome import OutcomeKind
from runyard.testing.conformance import FarProviderConformance, FarProviderWorld
from runyard.testing.promises.world import Following, attempts_in
from tests.kubernetes.strict_server import kubelet
from tests.kubernetes.strict_server.resources import QUOTAS
from tests.providers.kubernetes.world import UNCLOSED, StrictWorld, strict_world


@pytest.fixture
def a_quick_kubelet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measured times are for tests of time."""
    monkeypatch.setattr(kubelet, "CREATING_S", 0.02)
    monkeypatch.setattr(kubelet, "INIT_GAP_S", 0.02)


pytestmark = [pytest.mark.service, UNCLOSED]


class TestKubernetesProvider(FarProviderConformance):
    @pytest.fixture
    async def world(self, tmp_path: Path, a_quick_kubelet: None) -> AsyncIterator[StrictWorld]:
        async with strict_world(tmp_path) as world:
            yield world

    async def test_a_refused_start_leaves_nothing_and_may_be_tried_again(
        self, world: FarProviderWorld
    ) -> None:
        """The suite's word is NoCapacity; a cluster that has none leaves the pod pending, and only a quota refuses."""
        assert isinstance(world, StrictWorld)
        cluster = world.server.cluster
        quota = {"metadata": {"name": "team"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
        cluster.create(QUOTAS, "default", quota)
        provider, request = await world.start_provider(), world.request()
        with pytest.raises(QuotaExceeded):
            await Following(world, provider, request).outcome()
        assert world.count_starts(request.key) == 0
        assert attempts_in(await provider.list_resources()) == []
        cluster.delete(QUOTAS, "default", "team", {})
        assert (await Following(world, provider, request).outcome()).kind is OutcomeKind.SUCCEEDED
