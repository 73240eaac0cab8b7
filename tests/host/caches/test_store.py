"""Saved caches on disk: whose they are, that they are whole, and what a crash leaves."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from pathlib import Path

import pytest

from runyard.host.caches.entry import Scope
from runyard.host.caches.store import KEY_CHARS_MAX, CacheFailed, CacheStore

ACME = Scope(tenant="acme", queue="ci")
KEYS = ["../../../etc/passwd", "a/b", ".", "..", "nul\0inside", "ключ-🔑", "k" * 4096, "-rf", "", "\ud800"]


@pytest.fixture
def store(tmp_path: Path) -> CacheStore:
    return CacheStore(str(tmp_path / "caches"), bytes_max=1 << 20)


def save(store: CacheStore, key: str, content: bytes = b"content", scope: Scope = ACME):
    archive = store.new_archive()
    try:
        os.write(archive.fd, content)
        return store.keep(scope, key, archive)
    finally:
        archive.close()


def found(store: CacheStore, key: str, restore: tuple[str, ...] = (), scope: Scope = ACME):
    """(key, content), or None."""
    hit = store.find(scope, key, restore)
    if hit is None:
        return None
    try:
        return hit.entry.key, os.read(hit.fd, 1 << 20)
    finally:
        hit.close()


def files(tmp_path: Path, kind: str) -> list[Path]:
    return sorted(path for path in (tmp_path / "caches").rglob("*") if path.parent.name == kind)


def test_what_was_saved_is_found_by_its_key_alone(store):
    save(store, "pip-1")

    assert found(store, "pip-1") == ("pip-1", b"content")
    assert found(store, "pip-") is None
    assert found(store, "pip-11") is None


def test_a_prefix_finds_the_newest_and_the_first_prefix_that_finds_wins(store):
    for key in ("pip-1", "pip-2", "npm-1"):
        save(store, key, key.encode())

    assert found(store, "pip-3", ("pip-",)) == ("pip-2", b"pip-2")
    assert found(store, "x", ("absent-", "npm-", "pip-")) == ("npm-1", b"npm-1")
    assert found(store, "pip-1", ("pip-",)) == ("pip-1", b"pip-1")


def test_a_key_is_never_saved_twice(store):
    save(store, "pip-1", b"first")

    assert save(store, "pip-1", b"second") is None
    assert found(store, "pip-1") == ("pip-1", b"first")


@pytest.mark.parametrize("key", KEYS)
def test_a_hostile_key_is_a_key_like_any_other(store, tmp_path, key):
    before = {path for path in tmp_path.rglob("*") if "caches" not in path.parts}
    save(store, key)

    assert found(store, key) == (key, b"content")
    assert {path for path in tmp_path.rglob("*") if "caches" not in path.parts} == before
    assert all(len(path.name) <= 64 for path in (tmp_path / "caches").rglob("*"))


def test_a_key_without_end_is_refused(store):
    with pytest.raises(CacheFailed, match="longer than"):
        save(store, "k" * (KEY_CHARS_MAX + 1))


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        (Scope("acme", "ci"), Scope("acme", "release")),
        (Scope("acme", "ci"), Scope("other", "ci")),
        (Scope("a", "b-c"), Scope("a-b", "c")),
        (Scope("a/b", "c"), Scope("a", "b/c")),
        (Scope('a", "b', "c"), Scope("a", 'b", "c')),
        (Scope("a", ""), Scope("", "a")),
    ],
)
def test_no_other_tenant_or_queue_finds_or_replaces_it(store, mine, other):
    save(store, "key", b"mine", mine)

    assert found(store, "key", ("", "k"), other) is None
    save(store, "key", b"theirs", other)
    assert found(store, "key", scope=mine) == ("key", b"mine")
    assert found(store, "key", scope=other) == ("key", b"theirs")


def test_the_name_of_another_tenant_in_a_key_leads_nowhere(store):
    save(store, "key", b"theirs", Scope("other", "ci"))
    folder = Scope("other", "ci").folder

    for key in (f"../{folder}/keys/key", folder, "other/ci/key", '["other", "ci"]'):
        assert found(store, key, (key, "../")) is None


def test_a_key_file_put_into_another_scope_is_not_believed(store, tmp_path):
    save(store, "key", b"theirs", Scope("other", "ci"))
    [key_file] = files(tmp_path, "keys")
    mine = tmp_path / "caches" / "scopes" / ACME.folder
    (mine / "keys").mkdir(parents=True)
    (mine / "archives").mkdir()
    (mine / "keys" / key_file.name).write_bytes(key_file.read_bytes())
    [archive] = files(tmp_path, "archives")
    (mine / "archives" / archive.name).write_bytes(archive.read_bytes())

    assert found(store, "key", ("",)) is None


@pytest.mark.parametrize("damage", [b"CONTENT", b"cont", b"content and more", b""])
def test_a_damaged_archive_is_noticed_removed_and_can_be_saved_again(store, tmp_path, damage):
    save(store, "key")
    [archive] = files(tmp_path, "archives")
    archive.write_bytes(damage)

    assert found(store, "key", ("k",)) is None
    assert files(tmp_path, "archives") == files(tmp_path, "keys") == []
    save(store, "key")
    assert found(store, "key") == ("key", b"content")


def test_behind_a_damaged_one_the_next_older_is_found(store, tmp_path):
    save(store, "pip-1", b"old")
    [old] = files(tmp_path, "archives")
    save(store, "pip-2", b"new")
    [new] = [path for path in files(tmp_path, "archives") if path != old]
    new.write_bytes(b"bad")

    assert found(store, "pip-3", ("pip-",)) == ("pip-1", b"old")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"tenant": "acme"}', '{"tenant": 1}', "\0" * 10])
def test_a_torn_key_file_is_a_miss_that_can_be_saved_again(store, tmp_path, text):
    save(store, "key")
    [key_file] = files(tmp_path, "keys")
    key_file.write_text(text)

    assert found(store, "key", ("k",)) is None
    save(store, "key")
    assert found(store, "key") == ("key", b"content")


def test_a_key_whose_digest_is_a_path_is_not_believed(store, tmp_path):
    save(store, "key")
    [key_file] = files(tmp_path, "keys")
    document = json.loads(key_file.read_text()) | {"sha256": "../../../secret"}
    key_file.write_text(json.dumps(document))
    (tmp_path / "secret").write_bytes(b"content")

    assert found(store, "key") is None


CRASHES = ["fsync", "rename", "unlink", "utime", "makedirs"]


@pytest.mark.parametrize(("call", "count"), list(itertools.product(CRASHES, range(1, 5))))
def test_a_writer_killed_before_any_of_its_system_calls_leaves_nothing_wrong(store, tmp_path, call, count):
    """A child saves, over a full store, and is killed before its n-th call of that name."""
    save(store, "old", b"x" * 600_000)
    pid = os.fork()
    if pid == 0:
        _die_before(call, count)
        save(store, "key", b"y" * 600_000)
        os._exit(0)
    os.waitpid(pid, 0)

    survivor = CacheStore(str(tmp_path / "caches"), bytes_max=1 << 20)
    assert found(survivor, "key") in (None, ("key", b"y" * 600_000))
    assert found(survivor, "old") in (None, ("old", b"x" * 600_000))
    save(survivor, "key", b"y" * 600_000)
    assert found(survivor, "key") == ("key", b"y" * 600_000)
    assert len(files(tmp_path, "archives")) == len(files(tmp_path, "keys")) == 1
    assert files(tmp_path, "new") == []


def _die_before(call: str, count: int) -> None:
    """In the child only."""
    real, left = getattr(os, call), [count]

    def dying(*words, **options):
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)
        return real(*words, **options)

    setattr(os, call, dying)


def test_an_archive_that_is_being_written_is_not_swept_away(store, tmp_path):
    writing = store.new_archive()
    os.write(writing.fd, b"slow")
    save(store, "other")

    assert store.keep(ACME, "slow", writing) is not None
    writing.close()
    assert found(store, "slow") == ("slow", b"slow")


def test_the_least_recently_used_goes_first_and_the_bound_holds(store, tmp_path):
    for key in ("a", "b", "c"):
        save(store, key, key.encode() * 300_000)
    _set_used(store, tmp_path, {"a": 3, "b": 1, "c": 2})
    save(store, "d", b"d" * 300_000)

    assert [found(store, key) is not None for key in "abcd"] == [True, False, True, True]
    assert sum(path.stat().st_size for path in files(tmp_path, "archives")) <= 1 << 20


def _set_used(store, tmp_path, times) -> None:
    for path in files(tmp_path, "keys"):
        at = times[json.loads(path.read_text())["key"]]
        os.utime(path, (at, at))


def test_one_that_is_being_read_is_never_removed(store, tmp_path):
    save(store, "read", b"r" * 600_000)
    hit = store.find(ACME, "read")
    with pytest.raises(CacheFailed, match="being read"):
        save(store, "new", b"n" * 600_000)
    assert len(os.pread(hit.fd, 1 << 20, 0)) == 600_000
    hit.close()

    save(store, "new", b"n" * 600_000)
    assert found(store, "read") is None


def test_the_lock_of_a_reader_lasts_while_the_program_that_reads_has_it(store):
    save(store, "read", b"r" * 600_000)
    hit = store.find(ACME, "read")
    handed_on = os.dup(hit.fd)  # as to tar
    hit.close()
    with pytest.raises(CacheFailed):
        save(store, "new", b"n" * 600_000)
    os.close(handed_on)


def test_the_same_content_under_two_keys_lies_there_once_until_both_are_gone(store, tmp_path):
    save(store, "one", b"x" * 300_000)
    save(store, "two", b"x" * 300_000)
    assert len(files(tmp_path, "archives")) == 1
    _set_used(store, tmp_path, {"one": 1, "two": 2})
    save(store, "big", b"b" * 600_000)

    assert found(store, "one") is None
    assert found(store, "two") == ("two", b"x" * 300_000)


def test_a_store_that_is_held_for_long_is_not_waited_for_beyond_the_end(tmp_path):
    looks = iter([None, None, "a request to stop came"])
    store = CacheStore(str(tmp_path / "caches"), bytes_max=1 << 20, must_end=lambda: next(looks))
    with open(tmp_path / "caches" / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CacheFailed, match="a request to stop came"):
            store.new_archive()


def test_nobody_else_may_look_into_the_store(store, tmp_path):
    save(store, "key")

    assert (tmp_path / "caches").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "caches").rglob("*")} == {0}
