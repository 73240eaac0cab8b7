from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import pytest

from runyard.logs.files import FileLogStore
from runyard.logs.layout import write_cut
from runyard.logs.port import Chunk, Gap
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Invalid

KEY = AttemptKey("a" * 16, 1)


@pytest.fixture
async def store(tmp_path: Path):
    made = FileLogStore(tmp_path / "logs")
    yield made
    made.close()


def write(store: FileLogStore, data: bytes, step: str = "000", stream: str = "stdout", key=KEY) -> Path:
    file = store.directory(key) / f"{step}.{stream}"
    with file.open("ab") as opened:
        opened.write(data)
    return file


async def collect(store, ended, positions=None, key=KEY) -> list[Chunk | Gap]:
    return [item async for item in store.follow(key, positions or {}, ended)]


def is_set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def test_a_damaged_record_of_a_cut_hides_nothing(store):
    file = write(store, b"0123456789")
    (file.parent / "000.stdout.cut").write_text("nonsense")

    assert await store.read(KEY, "000", "stdout", 0, 100) == b"0123456789"


async def test_a_follower_is_woken_by_the_write_and_not_by_the_timer(store, monkeypatch):
    monkeypatch.setattr("runyard.logs.files.TIMER_S", 3600.0)
    ended = asyncio.Event()
    followers = [store.follow(KEY, {}, ended) for _ in range(5)]
    first = [asyncio.create_task(anext(follower)) for follower in followers]
    for _ in range(20):
        await asyncio.sleep(0)  # all of them have looked and wait now
    write(store, b"hello")  # the directory itself is made here too
    items = await asyncio.wait_for(asyncio.gather(*first), 10)
    for follower in followers:
        await follower.aclose()

    assert {item.data for item in items} == {b"hello"}
    assert store._watches._descriptors == {}


async def test_without_inotify_the_timer_finds_what_was_written(store, monkeypatch):
    monkeypatch.setattr("runyard.logs.files.TIMER_S", 0.01)
    store._watches._is_unavailable = True
    ended = asyncio.Event()
    following = store.follow(KEY, {}, ended)
    first = asyncio.create_task(anext(following))
    await asyncio.sleep(0)
    write(store, b"hello")

    assert (await asyncio.wait_for(first, 10)).data == b"hello"
    await following.aclose()


async def test_a_log_directory_that_is_removed_and_made_again_is_followed_on(store, monkeypatch):
    monkeypatch.setattr("runyard.logs.files.TIMER_S", 3600.0)
    write(store, b"one")
    following = store.follow(KEY, {}, asyncio.Event())
    assert (await anext(following)).data == b"one"
    await store.delete(KEY)
    lost = await asyncio.wait_for(anext(following), 10)
    write(store, b"one two")
    more = await asyncio.wait_for(anext(following), 10)
    await following.aclose()

    assert (lost.offset, lost.to, lost.is_cut) == (0, 3, False)
    assert (more.offset, more.data) == (3, b" two")


async def test_a_follower_is_told_a_cut_that_grows(store):
    file = write(store, b"0123456789")
    write_cut(file, 2, 5)
    following = store.follow(KEY, {}, is_set())
    items = [await anext(following), await anext(following)]
    write_cut(file, 2, 8)
    items += [item async for item in following]

    assert items == [
        Chunk(step="000", stream="stdout", offset=0, data=b"01"),
        Gap(step="000", stream="stdout", offset=2, to=5, is_cut=True),
        Gap(step="000", stream="stdout", offset=5, to=8, is_cut=True),
        Chunk(step="000", stream="stdout", offset=8, data=b"89"),
    ]


async def test_a_shrunk_stream_is_a_gap_that_is_said_once(store):
    file = write(store, b"0123456789")
    os.truncate(file, 4)

    assert await collect(store, is_set(), {("000", "stdout"): 10}) == [
        Gap(step="000", stream="stdout", offset=4, to=10, is_cut=False)
    ]


async def test_a_link_in_place_of_a_stream_is_not_followed(store, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (store.directory(KEY) / "000.stdout").symlink_to(tmp_path / "secret")
    os.mkfifo(store.directory(KEY) / "000.stderr")

    assert await store.read(KEY, "000", "stdout", 0, 100) == b""
    assert [item for item in await collect(store, is_set()) if isinstance(item, Chunk)] == []


async def test_a_large_log_costs_no_memory_to_follow(store):
    file = store.directory(KEY) / "000.stdout"
    size = 1 << 30
    with file.open("wb") as opened:
        opened.truncate(size)  # a hole: reads as zeros, takes no disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = 0
    async for item in store.follow(KEY, {}, is_set()):
        total += len(item.data)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert total == size
    assert grown_kib < 16 * 1024


async def test_two_stores_on_the_same_files_serve_the_same_log(store, tmp_path):
    write(store, b"hello")
    other = FileLogStore(tmp_path / "logs")

    assert await other.read(KEY, "000", "stdout", 0, 100) == b"hello"
    other.close()


@pytest.mark.parametrize("was_there", [False, True])
async def test_only_its_own_user_may_list_the_root(tmp_path, was_there):
    root = tmp_path / "new" / "logs"
    if was_there:
        root.mkdir(mode=0o755, parents=True)
    store = FileLogStore(root)
    store.close()

    assert root.stat().st_mode & 0o777 == 0o700


async def test_who_goes_on_with_a_log_from_afar_is_told_where_it_ended(store):
    sink = store.sink(KEY)
    assert await sink.size("000", "stdout") == 0
    await sink.append("000", "stdout", 4, b"abc")
    assert await store.sink(KEY).size("000", "stdout") == 7
    with pytest.raises(Invalid):
        await sink.size("../000", "stdout")
