"""What a docker pool never takes, said in words for the user."""

from __future__ import annotations

from typing import Any

import pytest

from runyard.model.pool import AvailabilityKind, Budget
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.docker.admission import admit
from runyard.providers.port import Capabilities, PoolShape

SHAPE = PoolShape(slots=2, budget=Budget(cpu_millis=2000, memory_bytes=4 << 30))


def ask(*, has_network_open: bool = False, **wants: Any) -> Any:
    gives = Capabilities(
        isolation=Isolation.CONTAINER,
        has_network_open=has_network_open,
        labels={"arch": "amd64", "os": "linux"},
    )
    return admit(Requirements(**wants), pool="c", capabilities=gives, shape=SHAPE)


@pytest.mark.parametrize(
    ("wants", "word"),
    [
        ({"arch": "arm64"}, "arm64"),
        ({"isolation": Isolation.MICROVM}, "microvm"),
        ({"labels": {"gpu": "a"}}, "gpu=a"),
        ({"network": "open"}, "open_network = true"),
        ({"network": "allow"}, "network.allow"),
        ({"needs_services": True}, "services"),
        ({"memory_bytes": 8 << 30}, "8.0Gi"),
        ({"cpu_millis": 3000}, "2 cpu"),
    ],
)
def test_what_it_can_never_give_is_named(wants: dict[str, Any], word: str) -> None:
    answer = ask(**wants)
    assert answer.kind is AvailabilityKind.NEVER
    assert word in answer.why


def test_what_fits_is_taken() -> None:
    assert ask().room == ask(network="open", has_network_open=True).room == 2


def test_services_are_taken_where_they_can_run_and_a_list_of_places_is_not() -> None:
    gives = Capabilities(
        isolation=Isolation.CONTAINER, has_services=True, labels={"arch": "amd64", "os": "linux"}
    )
    asked = Requirements(needs_services=True)
    assert admit(asked, pool="c", capabilities=gives, shape=SHAPE).room == 2
    listed = admit(
        Requirements(needs_services=True, network="allow"), pool="c", capabilities=gives, shape=SHAPE
    )
    assert (listed.kind, "a local pool can" in listed.why) == (AvailabilityKind.NEVER, True)
