"""Which saved cache goes when there are too many. Pure.

The tenant that takes most gives first, its least recently used one: a tenant who saves without end pushes out its own
caches and nobody else's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from runyard.host.caches.entry import Entry, StoredEntry

KEYS_MAX = 1000  # of one tenant in one queue: a search by prefix reads them all


def next_victim(
    stored: Sequence[StoredEntry], incoming: Entry, *, bytes_max: int, spared: Collection[Entry] = ()
) -> Entry | None:
    """The one to remove before `incoming` is put in; None when there is room, or nothing left that could go. `spared`
    are being read. An archive that several keys name is counted for each of them."""
    candidates = [each for each in stored if each.entry not in spared]
    same_scope = [each for each in candidates if each.entry.scope == incoming.scope]
    if sum(each.entry.scope == incoming.scope for each in stored) >= KEYS_MAX:
        return _least_recent(same_scope)
    taken = Counter({incoming.scope.tenant: incoming.size_bytes})
    for each in stored:
        taken[each.entry.scope.tenant] += each.entry.size_bytes
    if taken.total() <= bytes_max:
        return None
    for tenant, _ in taken.most_common():
        victim = _least_recent([each for each in candidates if each.entry.scope.tenant == tenant])
        if victim is not None:
            return victim
    return None


def has_room(stored: Sequence[StoredEntry], incoming: Entry, *, bytes_max: int) -> bool:
    """Whether it fits beside them."""
    return sum(each.entry.size_bytes for each in stored) + incoming.size_bytes <= bytes_max


def _least_recent(candidates: Sequence[StoredEntry]) -> Entry | None:
    oldest = min(candidates, key=lambda each: (each.used_at, each.entry.key), default=None)
    return None if oldest is None else oldest.entry
