"""The simulator finds what is wrong: each planted fault, within the histories that CI plays anyway."""

from __future__ import annotations

import pytest

from runyard.testing.simulation.run import simulate
from tests.simulation.planted import PLANTED

pytestmark = pytest.mark.simulation

HISTORIES = 300


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str) -> None:
    plant, invariants = PLANTED[name]
    for seed in range(HISTORIES):
        violation = simulate(seed, plant).violation
        if violation is not None:
            assert violation.partition(":")[0] in invariants, violation
            return
    pytest.fail(f"{HISTORIES} histories with the fault {name!r} in them found nothing wrong")
