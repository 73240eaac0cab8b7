"""Which saved cache goes, and that no tenant pushes out another's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runyard.host.caches.entry import Entry, Scope, StoredEntry
from runyard.host.caches.eviction import KEYS_MAX, has_room, next_victim


def entry(key: str, size: int, tenant: str = "acme", queue: str = "ci") -> Entry:
    return Entry(scope=Scope(tenant, queue), key=key, sha256="0" * 64, size_bytes=size, saved_at=0)


def stored(key: str, size: int, used_at: float, tenant: str = "acme") -> StoredEntry:
    return StoredEntry(entry=entry(key, size, tenant), used_at=used_at)


def test_with_room_nothing_goes():
    assert next_victim([stored("a", 40, 1)], entry("b", 60), bytes_max=100) is None


def test_the_least_recently_used_goes():
    there = [stored("a", 40, 3), stored("b", 40, 1), stored("c", 20, 2)]

    assert next_victim(there, entry("d", 10), bytes_max=100) == entry("b", 40)


def test_a_tenant_who_saves_much_pushes_out_its_own():
    there = [stored("small", 10, 1, "quiet"), stored("a", 50, 2, "noisy"), stored("b", 40, 3, "noisy")]

    assert next_victim(there, entry("c", 40, "noisy"), bytes_max=100) == entry("a", 50, "noisy")


def test_one_that_is_being_read_is_passed_over():
    there = [stored("a", 60, 1), stored("b", 30, 2)]

    assert next_victim(there, entry("c", 30), bytes_max=100, spared={entry("a", 60)}) == entry("b", 30)
    assert next_victim(there, entry("c", 30), bytes_max=100, spared={each.entry for each in there}) is None


def test_a_scope_keeps_no_more_keys_than_a_search_can_read():
    there = [stored(f"{number:05d}", 0, number) for number in range(KEYS_MAX)]

    assert next_victim(there, entry("new", 0), bytes_max=100) == entry("00000", 0)


entries = st.builds(
    StoredEntry,
    entry=st.builds(entry, st.text("abc", max_size=4), st.integers(0, 50), st.sampled_from(["a", "b", "c"])),
    used_at=st.floats(0, 10),
)


@given(st.lists(entries, max_size=12, unique_by=lambda each: each.entry), st.integers(0, 100))
def test_removing_one_victim_after_the_other_always_makes_room(there, size):
    incoming = entry("incoming", size, "a")
    while victim := next_victim(there, incoming, bytes_max=100):
        there = [each for each in there if each.entry != victim]

    assert has_room(there, incoming, bytes_max=100)
