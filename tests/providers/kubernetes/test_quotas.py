"""What is left of a namespace's quotas, in words that a user can read."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from runyard.model.requirements import Requirements
from runyard.providers.kubernetes.quotas import parse_quantity, quota_room

TWO_CORES = Requirements(cpu_millis=2000, memory_bytes=1 << 30)


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "team"}, "spec": spec, "status": {"hard": hard, "used": used or {}}}


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2", 2),
        ("500m", Fraction(1, 2)),
        ("4Gi", 4 << 30),
        ("1.5Gi", 3 << 29),
        ("1e3", 1000),
        ("3k", 3000),
        ("2E", 2 * 10**18),
        ("128974848", 128974848),
    ],
)
def test_amounts_are_read_as_kubernetes_writes_them(text: str, amount: Fraction | int) -> None:
    assert parse_quantity(text) == amount


def test_no_quota_says_nothing() -> None:
    assert quota_room([], TWO_CORES).room is None
    assert quota_room([quota({"count/configmaps": "1"})], TWO_CORES).room is None


def test_the_tightest_resource_gives_the_room() -> None:
    found = quota_room(
        [quota({"requests.cpu": "8", "pods": "3"}, {"requests.cpu": "1", "pods": "1"})], TWO_CORES
    )
    assert (found.room, found.is_never) == (2, False)


def test_what_is_used_up_is_named() -> None:
    found = quota_room([quota({"requests.cpu": "8"}, {"requests.cpu": "7"})], TWO_CORES)
    assert found.room == 0
    assert "ResourceQuota 'team' has requests.cpu 7 of 8 used, the job needs 2" in found.words


def test_what_could_not_run_in_an_empty_namespace_never_can() -> None:
    assert quota_room([quota({"pods": "9"}), quota({"limits.memory": "512Mi"})], TWO_CORES).is_never


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["Terminating"]}, False),
        ({"scopes": ["NotBestEffort", "NotTerminating"]}, True),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["low"]}]
                }
            },
            True,
        ),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]
                }
            },
            False,
        ),
    ],
)
def test_a_quota_for_other_pods_is_none_of_ours(spec: dict[str, Any], counts: bool) -> None:
    found = quota_room([quota({"pods": "0"}, **spec)], TWO_CORES, priority_class="low")
    assert (found.room is not None) is counts
