"""Which resources are nobody's and may go. Every guard errs towards keeping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runyard.model.attempt import AttemptKey
from runyard.model.machine import machine_number

BOOT_ALLOWANCE_S = 120.0
PER_SWEEP_MAX = 10
SHRUNK_TO = 0.5
SHRINK_COUNTS_FROM = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneState:
    """What one sweep leaves to the next: the unknown of the last complete listing, and how long that listing was."""

    unknown: frozenset[str] = frozenset()
    listed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What to destroy, and why each other unknown one is kept this time."""

    destroy: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)


def choose_unknown(
    *,
    names: Mapping[str, float],
    is_complete: bool,
    living: frozenset[str],
    before: PruneState,
    now: float,
) -> tuple[Pruned, PruneState]:
    """The resources to destroy, oldest first, and the state for the next sweep.

    `names` maps each listed resource to its time of creation; `living` are the names of unfinished attempts and of
    machines that are not gone. One is destroyed when it has our form of name, is not among the living, is older than
    BOOT_ALLOWANCE_S and was unknown in the complete listing before too; at most PER_SWEEP_MAX a sweep, and none when
    the listing is partial or has shrunk to half (a listing that forgets is not to be believed).
    """
    unknown = {name: created for name, created in names.items() if name not in living and _is_ours(name)}
    if not is_complete:
        return Pruned(kept=dict.fromkeys(unknown, "the listing is partial")), before
    state = PruneState(unknown=frozenset(unknown), listed=len(names))
    if before.listed >= SHRINK_COUNTS_FROM and len(names) < before.listed * SHRUNK_TO:
        why = f"the listing shrank from {before.listed} to {len(names)}"
        return Pruned(kept=dict.fromkeys(unknown, why)), state
    destroy: list[str] = []
    kept: dict[str, str] = {}
    for name, created in sorted(unknown.items(), key=lambda item: (item[1], item[0])):
        if name not in before.unknown:
            kept[name] = "seen unknown for the first time"
        elif now - created < BOOT_ALLOWANCE_S:
            kept[name] = f"younger than {BOOT_ALLOWANCE_S:g} s"
        elif len(destroy) >= PER_SWEEP_MAX:
            kept[name] = f"at most {PER_SWEEP_MAX} go in one sweep"
        else:
            destroy.append(name)
    return Pruned(destroy=tuple(destroy), kept=kept), state


def _is_ours(name: str) -> bool:
    return AttemptKey.from_resource_name(name) is not None or machine_number(name) is not None
