"""Which resources are nobody's and may go."""

from __future__ import annotations

from runyard.model.machine import machine_name
from runyard.policy.prune import BOOT_ALLOWANCE_S, PER_SWEEP_MAX, Pruned, PruneState, choose_unknown

NOW = 10_000.0
OLD = NOW - BOOT_ALLOWANCE_S - 1


def name(number: int) -> str:
    return f"runyard-{number:016d}-1"


def sweep(
    names: dict[str, float],
    *,
    before: PruneState | None = None,
    living: frozenset[str] = frozenset(),
    is_complete: bool = True,
) -> tuple[Pruned, PruneState]:
    state = before if before is not None else PruneState(unknown=frozenset(names), listed=len(names))
    return choose_unknown(names=names, is_complete=is_complete, living=living, before=state, now=NOW)


def test_an_old_unknown_resource_seen_twice_goes() -> None:
    assert sweep({name(1): OLD})[0].destroy == (name(1),)


def test_one_seen_for_the_first_time_is_kept_until_the_next_sweep() -> None:
    pruned, state = sweep({name(1): OLD}, before=PruneState())
    assert pruned.destroy == ()
    assert sweep({name(1): OLD}, before=state)[0].destroy == (name(1),)


def test_a_living_attempts_resource_is_kept() -> None:
    assert sweep({name(1): OLD}, living=frozenset({name(1)}))[0].destroy == ()


def test_a_young_one_is_kept() -> None:
    assert sweep({name(1): NOW - 1})[0].destroy == ()


def test_a_partial_listing_proves_nothing_and_is_not_remembered() -> None:
    before = PruneState(unknown=frozenset({name(1)}), listed=3)
    pruned, state = sweep({name(1): OLD}, before=before, is_complete=False)
    assert pruned.destroy == ()
    assert state == before


def test_a_listing_that_shrank_suspiciously_stops_the_sweep() -> None:
    before = PruneState(unknown=frozenset({name(1)}), listed=100)
    assert sweep({name(1): OLD}, before=before)[0].destroy == ()


def test_at_most_a_few_go_in_one_sweep_and_the_oldest_first() -> None:
    names = {name(number): OLD - number for number in range(PER_SWEEP_MAX + 5)}
    pruned, _ = sweep(names)
    assert len(pruned.destroy) == PER_SWEEP_MAX
    assert pruned.destroy[0] == name(PER_SWEEP_MAX + 4)


def test_a_name_that_is_not_of_our_form_is_never_touched() -> None:
    assert sweep({"somebody-elses": OLD, "runyard-short-1": OLD})[0].destroy == ()


def test_a_machine_that_has_no_row_goes_and_a_living_one_is_kept() -> None:
    machine = machine_name("installation", "pool", 1)
    assert sweep({machine: OLD})[0].destroy == (machine,)
    assert sweep({machine: OLD}, living=frozenset({machine}))[0].destroy == ()
