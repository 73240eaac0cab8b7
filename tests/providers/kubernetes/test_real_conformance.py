"""The provider keeps the port's promises over a real cluster, whose namespace demands the restricted Pod Security."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.model.errors import QuotaExceeded
from runyard.model.outcome import OutcomeKind
from runyard.providers.kubernetes.client import QUOTAS
from runyard.testing.conformance import FarProviderConformance, FarProviderWorld
from runyard.testing.promises.world import Following, attempts_in
from tests.providers.kubernetes.real_cluster import WHY_NOT, RealWorld
from tests.providers.kubernetes.world import UNCLOSED

pytestmark = [
    pytest.mark.service,
    UNCLOSED,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]


class TestKubernetesProviderOnARealCluster(FarProviderConformance):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[RealWorld]:
        world = RealWorld(tmp_path)
        await world.open()
        yield world
        await world.close()

    async def test_a_refused_start_leaves_nothing_and_may_be_tried_again(
        self, world: FarProviderWorld
    ) -> None:
        """The suite's word is NoCapacity; a cluster that has none leaves the pod pending, and only a quota refuses."""
        assert isinstance(world, RealWorld)
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "team"},
            "spec": {"hard": {"count/jobs.batch": "0"}},
        }
        provider, request = await world.start_provider(), world.request()
        await world.client.create(QUOTAS, quota)
        await world.quota_counts("team")
        with pytest.raises(QuotaExceeded):
            await Following(world, provider, request).outcome()
        assert world.count_starts(request.key) == 0
        assert attempts_in(await provider.list_resources()) == []
        await world.client.delete(QUOTAS, "team")
        assert (await Following(world, provider, request).outcome()).kind is OutcomeKind.SUCCEEDED
