"""What a cluster's pool never takes, said with the cure."""

from __future__ import annotations

from typing import Any

import pytest

from runyard.model.pool import AvailabilityKind, Budget, PoolSettings
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.kubernetes.admission import ClusterFacts, admit

POOL = PoolSettings(
    name="k",
    provider="kubernetes",
    slots=10,
    budget=Budget(cpu_millis=10**9, memory_bytes=1 << 60),
    isolation=Isolation.CONTAINER,
    has_images=True,
)


@pytest.mark.parametrize(
    ("wants", "words"),
    [({"network": "allow"}, "network.allow"), ({"needs_services": True}, "services beside a job")],
)
def test_lists_of_places_and_services_are_for_other_pools(wants: dict[str, Any], words: str) -> None:
    answer = admit(Requirements(**wants), pool=POOL, facts=ClusterFacts())
    assert answer.kind is AvailabilityKind.NEVER
    assert words in answer.why
    assert "a local pool can" in answer.why


@pytest.mark.parametrize("network", ["none", "open"])
def test_both_networks_that_policies_tell_apart_are_given(network: str) -> None:
    answer = admit(Requirements(network=network), pool=POOL, facts=ClusterFacts())
    assert answer.kind is AvailabilityKind.NOW
