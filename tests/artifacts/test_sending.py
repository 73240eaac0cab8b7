"""Artifacts on their way into an object store: crashes, outages, damage."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from runyard.artifacts import objects as artifact_objects
from runyard.artifacts.files import FileArtifactStore
from runyard.artifacts.objects import ObjectArtifactStore
from runyard.artifacts.port import Artifact
from runyard.artifacts.sending import ArtifactSender
from runyard.model.attempt import AttemptKey
from runyard.model.errors import StoreUnavailable
from runyard.object_store import ObjectStore

KEY = AttemptKey("a" * 16, 1)


class Died(BaseException):
    """The process is gone."""


class FaultyStore(ObjectStore):
    """Its puts fail while it is `down`; the process ends before or after the n-th."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), "memory")
        self.down = False
        self.dies_at = 0
        self.dies_after = False
        self.puts: list[str] = []
        self.refused = asyncio.Event()

    async def put(self, path, data):
        if self.down:
            self.refused.set()
            raise StoreUnavailable("object store memory: cannot be reached")
        self.puts.append(path)
        dies = len(self.puts) == self.dies_at
        if dies and not self.dies_after:
            raise Died
        await super().put(path, data)
        if dies:
            raise Died


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def here(tmp_path: Path, store) -> ObjectArtifactStore:
    made = ObjectArtifactStore(FileArtifactStore(tmp_path / "here"), store)
    for number in range(3):
        write(made, f"file{number}", b"%d" % number * 100)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, store) -> ObjectArtifactStore:
    return ObjectArtifactStore(FileArtifactStore(tmp_path / "there"), store)


def write(artifacts: ObjectArtifactStore, path: str, data: bytes) -> None:
    file = artifacts.directory(KEY) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


ALL = [Artifact(f"file{number}", 100) for number in range(3)]


@pytest.mark.parametrize("dies_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, 6))
async def test_a_service_that_dies_at_any_call_shows_all_or_nothing_and_sends_nothing_twice(
    here, elsewhere, store, call, dies_after
):
    store.dies_at, store.dies_after = call, dies_after
    try:
        await here.send(KEY)
    except Died:
        assert await here.list(KEY) == ALL
    assert await elsewhere.list(KEY) in ([], ALL)
    arrived = {each.path for each in await store.list()}
    store.dies_at, sent = 0, len(store.puts)
    await here.send(KEY)

    assert await elsewhere.list(KEY) == ALL
    assert not here.directory(KEY).exists()
    assert arrived.isdisjoint(path for path in store.puts[sent:] if not path.endswith("manifest.json"))


async def test_equal_files_are_sent_once(here, elsewhere, store):
    write(here, "copy", b"0" * 100)
    await here.send(KEY)

    assert len(store.puts) == 4
    assert len(await elsewhere.list(KEY)) == 4


async def test_an_attempt_is_not_settled_before_its_artifacts_are_there(here, elsewhere, store):
    sender = ArtifactSender(here, _yes, retry_s=0.005)
    store.down = True
    settling = asyncio.create_task(sender.before_settle(KEY))
    await asyncio.wait_for(store.refused.wait(), 10)
    assert not settling.done()
    store.down = False
    await asyncio.wait_for(settling, 10)

    assert await elsewhere.list(KEY) == ALL


async def test_a_store_that_stays_down_holds_up_no_queue_and_they_are_sent_later(here, elsewhere, store):
    sender = ArtifactSender(here, _yes, wait_max_s=0.02, retry_s=0.005)
    store.down = True
    await asyncio.wait_for(sender.before_settle(KEY), 10)
    assert await here.list(KEY) == ALL
    await sender.look()
    store.down = False
    await sender.look()

    assert await elsewhere.list(KEY) == ALL
    assert not here.directory(KEY).exists()


async def test_what_a_running_attempt_collects_is_left_alone(here, store):
    await ArtifactSender(here, _no).look()

    assert store.puts == []


async def test_an_attempt_without_artifacts_makes_no_call(store, tmp_path):
    made = ObjectArtifactStore(FileArtifactStore(tmp_path / "none"), store)
    store.down = True
    await asyncio.wait_for(ArtifactSender(made, _yes).before_settle(KEY), 10)


async def test_a_damaged_object_never_gets_its_last_bytes(here, elsewhere, store):
    await here.send(KEY)
    [name] = [path for path in store.puts if path.endswith("manifest.json") is False][:1]
    await store.put(name, b"X" * 100)
    [file] = [
        opened
        for path in ("file0", "file1", "file2")
        if await _is_damaged(opened := await elsewhere.open(KEY, path))
    ]
    with pytest.raises(StoreUnavailable, match="not what was stored"):
        await file.read(0, 100)


async def _is_damaged(opened) -> bool:
    try:
        return (await opened.read(0, 1)) == b"X"
    except StoreUnavailable:
        return True


async def test_what_another_owner_of_the_attempt_sent_is_kept(here, elsewhere, store):
    write(elsewhere, "other", b"more")
    await elsewhere.send(KEY)
    await here.send(KEY)
    fresh = ObjectArtifactStore(elsewhere.local, store)

    assert await fresh.list(KEY) == [*ALL, Artifact("other", 4)]


async def test_a_file_of_any_length_that_takes_no_disk_is_left_out(here, elsewhere, monkeypatch):
    monkeypatch.setattr(artifact_objects, "FILE_BYTES_MAX", 1000)
    write(here, "sparse", b"")
    os.truncate(here.directory(KEY) / "sparse", 1 << 40)
    await here.send(KEY)

    assert await elsewhere.list(KEY) == ALL


async def test_what_was_half_removed_after_it_was_sent_goes(here):
    await here.send(KEY)
    half = here.directory(KEY).with_name(".1.sent")
    half.mkdir()
    (half / "file1").write_text("left")
    here.local.clean(older_than_s=0)

    assert list(here.directory(KEY).parent.parent.iterdir()) == []


async def _yes(key: AttemptKey) -> bool:
    return True


async def _no(key: AttemptKey) -> bool:
    return False
