"""Logs on their way into an object store: crashes, outages, two services, and what lies there in the end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from runyard.logs import shipping
from runyard.logs.port import Chunk
from runyard.model.attempt import AttemptKey
from runyard.model.errors import StoreUnavailable
from runyard.object_store import ObjectStore
from tests.logs.world import KEY, LogWorld, Service, is_set


class FaultyStore(ObjectStore):
    """A store whose calls fail while it is `down`, and end the process that makes the n-th one, before or after it."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), "memory")
        self.down = False
        self.dies_at: int | None = None
        self.dies_after = False
        self.spoils = False
        self.refused = asyncio.Event()

    async def _pass(self, call):
        if self.down:
            call.close()
            self.refused.set()
            raise StoreUnavailable("object store memory: cannot be reached")
        if self.dies_at is None:
            return await call
        self.dies_at -= 1
        if self.dies_at == 0 and not self.dies_after:
            call.close()
            raise Died
        result = await call
        if self.dies_at == 0:
            raise Died
        return result

    async def put(self, path, data):
        if self.spoils and isinstance(data, bytes) and data:
            data = b"X" + data[1:]
        return await self._pass(super().put(path, data))

    async def get_range(self, path, begin, end):
        return await self._pass(super().get_range(path, begin, end))

    async def list(self, prefix=None):
        return await self._pass(super().list(prefix))

    async def delete(self, paths):
        return await self._pass(super().delete(paths))


class Died(BaseException):
    """The process is gone."""


@pytest.fixture
def objects() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def service(tmp_path: Path, objects: FaultyStore):
    made = Service(tmp_path / "here", objects, set(), last_words_s=0.05)
    yield made
    made.store.close()


@pytest.fixture
def elsewhere(tmp_path: Path, objects: FaultyStore, service):
    made = Service(tmp_path / "there", objects, service.settled, last_words_s=0.05)
    yield made
    made.store.close()


@pytest.fixture
def world(service, elsewhere) -> LogWorld:
    return LogWorld(service.files, elsewhere.store, service)


async def names(objects) -> list[str]:
    return sorted(each.path.removeprefix(f"{KEY.uid}/1/") for each in await ObjectStore.list(objects))


async def test_in_the_end_a_stream_is_one_object_and_nothing_is_here(world, service, objects, monkeypatch):
    monkeypatch.setattr(shipping, "PIECE_BYTES_MAX", 10)
    for _ in range(3):
        world.write(b"0123456789abcdef")
        await service.shipper.look()
    assert len(await names(objects)) == 6
    await world.end()

    assert await names(objects) == ["000.stdout/0000000000000000-0000000000000048", "complete"]
    assert not service.files.is_here(KEY)
    assert [item.data for item in await world.collect(is_set())] == [b"0123456789abcdef" * 3]


async def test_around_a_cut_a_stream_is_two_objects(world, service, objects, monkeypatch):
    monkeypatch.setattr(shipping, "PIECE_BYTES_MAX", 4)
    world.write(b"0123456789")
    await service.shipper.look()
    world.cut(3, 7)
    await world.end()

    assert await names(objects) == [
        "000.stdout/0000000000000000-0000000000000003",
        "000.stdout/0000000000000003-0000000000000007.cut",
        "000.stdout/0000000000000007-0000000000000010",
        "complete",
    ]


async def test_nothing_goes_from_here_before_the_attempt_is_settled(world, service):
    world.write(b"running")
    for _ in range(5):
        await service.shipper.look()

    assert service.files.is_here(KEY)


@pytest.mark.parametrize("dies_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, 14))
async def test_a_service_that_dies_at_any_call_loses_nothing_and_doubles_nothing(
    world, service, objects, monkeypatch, call, dies_after
):
    monkeypatch.setattr(shipping, "PIECE_BYTES_MAX", 10)
    objects.dies_at, objects.dies_after = call, dies_after
    try:
        for _ in range(2):
            world.write(b"0123456789abcdef")
            world.write(b"err", stream="stderr")
            await service.shipper.look()
        await world.end()
    except Died:
        service.shipper = service.new_shipper()
    objects.dies_at = None
    size = service.files.is_here(KEY) and (service.files.directory(KEY) / "000.stdout").stat().st_size
    written = 2 if not service.files.is_here(KEY) else size // 16
    await world.end()

    assert await names(objects) == [
        f"000.stderr/0000000000000000-{3 * written:016d}",
        f"000.stdout/0000000000000000-{16 * written:016d}",
        "complete",
    ]
    assert not service.files.is_here(KEY)
    data = {item.stream: item.data for item in await world.collect(is_set())}
    assert data == {"stdout": b"0123456789abcdef" * written, "stderr": b"err" * written}


async def test_while_the_store_is_down_logs_are_served_here_and_shipped_later(
    world, service, elsewhere, objects
):
    objects.down = True
    world.write(b"one ")
    assert await service.shipper.look() is False
    assert await service.store.read(KEY, "000", "stdout", 0, 100) == b"one "
    following = asyncio.create_task(_collect(service, is_set()))
    assert [item.data for item in await asyncio.wait_for(following, 10)] == [b"one "]
    with pytest.raises(StoreUnavailable):
        await elsewhere.store.read(KEY, "000", "stdout", 0, 100)
    world.write(b"two")
    objects.down = False
    await world.shown()

    assert await elsewhere.store.read(KEY, "000", "stdout", 0, 100) == b"one two"


async def test_a_job_that_begins_to_print_is_followed_at_once_although_the_store_is_down(
    world, service, objects
):
    objects.down = True
    ended = asyncio.Event()
    following = asyncio.create_task(_collect(service, ended))
    await asyncio.wait_for(objects.refused.wait(), 10)
    world.write(b"hello")
    ended.set()

    assert [item.data for item in await asyncio.wait_for(following, 10)] == [b"hello"]


async def test_a_follower_elsewhere_outlives_an_outage(world, service, elsewhere, objects):
    ended = asyncio.Event()
    following = asyncio.create_task(world.collect(ended))
    objects.down = True
    world.write(b"hello")
    await asyncio.wait_for(objects.refused.wait(), 10)
    objects.down = False
    await world.end()
    ended.set()

    assert [item.data for item in await asyncio.wait_for(following, 10)] == [b"hello"]


async def test_a_store_that_is_down_at_the_end_is_said_and_not_taken_for_the_end(world, elsewhere, objects):
    objects.down = True

    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(world.collect(is_set()), 10)


async def test_a_store_that_spoils_what_it_is_given_never_gets_the_last_copy(world, service, objects):
    objects.spoils = True
    world.write(b"precious")
    service.settled.add(KEY)
    for _ in range(5):
        assert await service.shipper.look() in (True, False)
    assert service.files.is_here(KEY)
    objects.spoils = False
    await world.end()

    assert [item.data for item in await world.collect(is_set())] == [b"precious"]


async def test_an_attempt_without_a_word_is_complete_and_holds_up_no_follower(
    world, service, elsewhere, objects
):
    service.files.directory(KEY)
    await world.end()

    assert await names(objects) == ["complete"]
    elsewhere.store._last_words_s = 3600.0
    assert await asyncio.wait_for(world.collect(is_set()), 10) == []


async def test_what_a_service_that_died_did_not_ship_is_waited_for_only_so_long(world, service, elsewhere):
    world.write(b"shipped ")
    await service.shipper.look()
    world.write(b"and lost")

    assert [item.data for item in await asyncio.wait_for(world.collect(is_set()), 10)] == [b"shipped "]


async def test_another_service_goes_on_with_the_log_of_a_far_attempt(world, service, elsewhere):
    await service.store.sink(KEY).append("000", "stdout", 0, b"one ")
    await service.shipper.look()
    other = elsewhere.store.sink(KEY)
    assert await other.size("000", "stdout") == 4
    await other.append("000", "stdout", 4, b"two")
    await elsewhere.shipper.look()
    assert await elsewhere.store.read(KEY, "000", "stdout", 0, 100) == b"one two"
    async with asyncio.timeout(20):
        while service.files.is_here(KEY):  # its part is no longer the whole
            await service.shipper.look()

    assert [await service.store.read(KEY, "000", "stdout", at, 100) for at in (0, 4)] == [b"one ", b"two"]
    elsewhere.settled.add(KEY)
    await elsewhere.ship_all()
    service.store.reader.forget(KEY)
    assert [item.data for item in await _collect(service, is_set())] == [b"one two"]


async def test_a_log_that_is_deleted_does_not_come_back(world, service, objects):
    world.write(b"x" * 100)
    looking = asyncio.create_task(service.shipper.look())
    await asyncio.sleep(0)
    await service.store.delete(KEY)
    await looking
    await service.shipper.look()

    assert await names(objects) == []


async def test_a_job_that_was_deleted_elsewhere_goes_here_too(world, service, objects):
    world.write(b"x" * 100)
    await service.shipper.look()
    service.settled.add(KEY)
    await service.shipper.look()
    await objects.delete([each.path for each in await objects.list()])
    service.deleted.add(KEY)
    await service.shipper.look()

    assert not service.files.is_here(KEY)
    assert await names(objects) == []


async def test_what_the_ledger_does_not_know_is_neither_sent_nor_removed(world, service, objects):
    service.deleted.add(KEY)
    world.write(b"another ledger's")
    for _ in range(3):
        await service.shipper.look()

    assert service.files.is_here(KEY)
    assert await names(objects) == []


async def test_a_log_that_somebody_shortened_here_ends_all_the_same(world, service, objects):
    file = world.write(b"0123456789")
    await service.shipper.look()
    os.truncate(file, 4)
    await world.end()

    assert [item.data for item in await world.collect(is_set())] == [b"0123456789"]


async def test_a_log_that_cannot_be_read_holds_up_no_other(world, service, elsewhere, objects):
    (service.files.directory(AttemptKey("b" * 16, 1)) / "000.stdout").symlink_to("/dev/null")
    world.write(b"hello")
    await service.shipper.look()

    assert await elsewhere.store.read(KEY, "000", "stdout", 0, 100) == b"hello"


async def _collect(service, ended) -> list[Chunk]:
    return [item async for item in service.store.follow(KEY, {}, ended)]
