"""Files from afar are kept whole or not at all, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runyard.artifacts.files import FileArtifactStore
from runyard.artifacts.sink import FileArtifactSink
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Invalid

KEY = AttemptKey("a" * 16, 1)


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def broken_off() -> AsyncIterator[bytes]:
    yield b"half"
    raise ConnectionError("the machine is gone")


@pytest.fixture
def store(tmp_path: Path) -> FileArtifactStore:
    return FileArtifactStore(tmp_path / "artifacts")


async def names(store: FileArtifactStore) -> list[str]:
    return [artifact.path for artifact in await store.list(KEY)]


async def test_a_file_can_be_read_back_and_the_latest_counts(store: FileArtifactStore) -> None:
    sink = store.sink(KEY)
    await sink.store("a/b.txt", chunks_of(b"first, and longer"))
    await sink.store("./a//b.txt", chunks_of(b"sec", b"ond"))
    opened = await store.open(KEY, "a/b.txt")
    assert opened is not None
    assert await opened.read(0, 100) == b"second"
    opened.close()


async def test_a_call_that_was_broken_off_leaves_what_was_there(store: FileArtifactStore) -> None:
    sink = store.sink(KEY)
    await sink.store("a", chunks_of(b"whole"))
    for path in ("a", "b"):
        with pytest.raises(ConnectionError):
            await sink.store(path, broken_off())
    assert await names(store) == ["a"]
    assert (store.directory(KEY) / "a").read_bytes() == b"whole"
    assert os.listdir(store.directory(KEY).parent) == ["1"]


@pytest.mark.parametrize("path", ["", "/", ".", "..", "../x", "a/../../x", "/etc/passwd", "a\0b"])
async def test_a_path_that_leaves_the_directory_is_refused(store: FileArtifactStore, path: str) -> None:
    with pytest.raises(Invalid):
        await store.sink(KEY).store(path, chunks_of(b"x"))
    assert await names(store) == []


async def test_a_link_in_the_way_is_not_followed(store: FileArtifactStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    store.directory(KEY).mkdir(parents=True)
    (store.directory(KEY) / "link").symlink_to(outside)
    with pytest.raises(Invalid):
        await store.sink(KEY).store("link/x", chunks_of(b"x"))
    await store.sink(KEY).store("link", chunks_of(b"x"))  # in its place
    assert list(outside.iterdir()) == []
    assert (store.directory(KEY) / "link").read_bytes() == b"x"


async def test_a_file_where_a_folder_should_be_is_an_error(store: FileArtifactStore) -> None:
    await store.sink(KEY).store("a", chunks_of(b"x"))
    with pytest.raises(Invalid):
        await store.sink(KEY).store("a/b", chunks_of(b"x"))


async def test_bytes_and_files_of_an_attempt_are_bounded_over_its_sinks(tmp_path: Path) -> None:
    directory = tmp_path / "uid" / "1"
    await FileArtifactSink(directory, bytes_max=10, files_max=2).store("a", chunks_of(b"x" * 8))
    sink = FileArtifactSink(directory, bytes_max=10, files_max=2)
    with pytest.raises(Invalid, match="more than 10 bytes"):
        await sink.store("b", chunks_of(b"x", b"xx"))
    await sink.store("b", chunks_of(b"xx"))
    with pytest.raises(Invalid, match="2 files"):
        await sink.store("c", chunks_of(b""))
    await sink.store("b", chunks_of(b""))
