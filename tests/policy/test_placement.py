"""Which pool may take what, and how much of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runyard.model.pool import AvailabilityKind, Budget, WaitCode, never, now, soon
from runyard.model.requirements import Isolation, Requirements
from runyard.policy.placement import (
    RESERVE_AFTER_S,
    availability,
    free_budget,
    free_slots,
    misfit,
    reserved_class,
    room_in,
)
from tests.factories import GIB, a_pool_settings, a_requirements


def test_a_pool_that_isolates_less_than_demanded_never_takes_the_job() -> None:
    reason = misfit(a_requirements(isolation=Isolation.MICROVM), a_pool_settings())
    assert reason == "pool 'local' isolates as container, the job demands microvm"


def test_a_pool_that_isolates_more_than_demanded_takes_the_job() -> None:
    assert misfit(a_requirements(isolation=Isolation.NONE), a_pool_settings()) is None


def test_a_job_larger_than_the_whole_pool_never_fits_and_the_numbers_are_said() -> None:
    assert "8.0 GiB of memory to give, the job demands 64.0 GiB" in str(
        misfit(a_requirements(memory_bytes=64 * GIB), a_pool_settings())
    )
    assert "4 cores to give, the job demands 16" in str(
        misfit(a_requirements(cpu_millis=16_000), a_pool_settings())
    )


def test_labels_and_arch_must_match() -> None:
    pool = a_pool_settings(labels={"arch": "amd64", "gpu": "no"})
    assert misfit(a_requirements(arch="amd64"), pool) is None
    assert misfit(a_requirements(arch="x86_64"), pool) is None
    assert "arch=amd64, the job demands arch=arm64" in str(misfit(a_requirements(arch="aarch64"), pool))
    assert "has no label zone" in str(misfit(a_requirements(labels={"zone": "b"}), pool))


def test_a_job_that_demands_a_network_does_not_fit_where_none_can_be_had() -> None:
    assert "cannot give a network" in str(
        misfit(a_requirements(network="open"), a_pool_settings(has_network_open=False))
    )
    assert misfit(a_requirements(), a_pool_settings(has_network_open=False)) is None


def test_a_job_that_lists_where_it_may_go_fits_only_where_a_list_can_be_kept() -> None:
    listed = a_requirements(network="allow")
    assert "network.allow" in str(misfit(listed, a_pool_settings()))
    assert misfit(listed, a_pool_settings(has_network_allow=True)) is None
    assert listed.class_key() != a_requirements(network="open").class_key()


def test_a_job_with_services_fits_only_where_they_can_run() -> None:
    needy = a_requirements(needs_services=True)
    assert "cannot run services" in str(misfit(needy, a_pool_settings()))
    assert misfit(needy, a_pool_settings(has_services=True)) is None
    assert needy.class_key() != a_requirements().class_key()


def test_the_budget_bounds_how_many_fit() -> None:
    budget = Budget(cpu_millis=4000, memory_bytes=3 * GIB)
    assert room_in(budget, 10, a_requirements()) == 3
    assert room_in(budget, 2, a_requirements()) == 2
    assert room_in(budget, 10, a_requirements(cpu_millis=4001)) == 0


def test_a_full_pool_says_which_bound_it_hit() -> None:
    pool = a_pool_settings()
    full = availability(a_requirements(), pool, free=pool.budget, slots_free=0, place=now(4))
    assert full == soon(WaitCode.POOL_FULL, "all 4 slots of pool 'local' are in use")
    tight = Budget(cpu_millis=500, memory_bytes=8 * GIB)
    answer = availability(a_requirements(), pool, free=tight, slots_free=2, place=now(4))
    assert answer.kind is AvailabilityKind.SOON
    assert "0.5 cores" in answer.why


def test_what_the_place_itself_says_stands() -> None:
    pool = a_pool_settings()
    said = soon(WaitCode.QUOTA, "the cloud's quota is used up", 60.0)
    assert availability(a_requirements(), pool, free=pool.budget, slots_free=4, place=said) == said


def test_slots_are_free_unless_held() -> None:
    assert free_slots(4, [1, 3]) == (0, 2)


@given(
    st.lists(
        st.builds(
            Requirements,
            cpu_millis=st.integers(1, 5000),
            memory_bytes=st.integers(1, 10 * GIB),
        ),
        max_size=8,
    )
)
def test_the_free_budget_is_never_negative(held: list[Requirements]) -> None:
    free = free_budget(Budget(cpu_millis=4000, memory_bytes=8 * GIB), held)
    assert free.cpu_millis >= 0
    assert free.memory_bytes >= 0


FULL = soon(WaitCode.POOL_FULL, "too big for now")


def test_a_big_job_that_small_ones_would_starve_has_room_kept_for_it() -> None:
    waiting = {"big": 0.0, "small": 50.0}
    answers = {"big": FULL, "small": now(2)}
    assert reserved_class(waiting, answers, now_at=RESERVE_AFTER_S - 1) is None
    assert reserved_class(waiting, answers, now_at=RESERVE_AFTER_S + 1) == "big"


def test_no_room_is_kept_for_a_job_that_waits_shorter_than_the_small_ones() -> None:
    waiting = {"big": 50.0, "small": 0.0}
    assert reserved_class(waiting, {"big": FULL, "small": now(2)}, now_at=1000.0) is None


def test_no_room_is_kept_for_what_never_fits() -> None:
    answers = {"big": never("no such arch"), "small": now(2)}
    assert reserved_class({"big": 0.0, "small": 50.0}, answers, now_at=1000.0) is None
