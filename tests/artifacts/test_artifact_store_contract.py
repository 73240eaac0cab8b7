"""What every artifact store promises: of files, of objects before they are sent, and once they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from runyard.artifacts.files import FileArtifactStore
from runyard.artifacts.objects import ObjectArtifactStore
from runyard.artifacts.port import Artifact, ArtifactStore
from runyard.model.attempt import AttemptKey
from runyard.object_store import ObjectStore, open_object_store

KEY = AttemptKey("a" * 16, 1)
STORES = [
    "file",
    "objects, unsent",
    "objects, sent",
    "folder, sent",
    pytest.param("s3, sent", marks=pytest.mark.service),
]


class World:
    """Files are left in `writer`'s folder; `reader` is the store under test, of another service once they are sent."""

    def __init__(self, writer: ArtifactStore, reader: ArtifactStore, *, sends: bool) -> None:
        self.writer = writer
        self.reader = reader
        self._sends = sends

    @property
    def folder(self) -> Path:
        return self.writer.directory(KEY)

    def write(self, path: str | bytes, data: bytes = b"data", key: AttemptKey = KEY) -> None:
        file = os.path.join(os.fsencode(self.writer.directory(key)), os.fsencode(path))
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as opened:
            opened.write(data)

    async def collected(self, key: AttemptKey = KEY) -> None:
        if self._sends:
            await self.writer.send(key)
            assert not self.writer.directory(key).exists()

    async def content(self, path: str, offset: int = 0) -> bytes | None:
        file = await self.reader.open(KEY, path)
        if file is None:
            return None
        data = b""
        while chunk := await file.read(offset + len(data), 1 << 20):
            data += chunk
        file.close()
        return data


@pytest.fixture(params=STORES)
def world(request, tmp_path: Path) -> World:
    kind, _, state = request.param.partition(", ")
    files = FileArtifactStore(tmp_path / "artifacts")
    if kind == "file":
        return World(files, files, sends=False)
    match kind:
        case "s3":
            objects = request.getfixturevalue("bucket")
        case "folder":
            objects = open_object_store(f"file://{tmp_path}/objects", {}, field="artifacts.url")
        case _:
            objects = ObjectStore(MemoryStore(), "memory")
    writer = ObjectArtifactStore(files, objects)
    if state == "unsent":
        return World(writer, writer, sends=False)
    return World(writer, ObjectArtifactStore(FileArtifactStore(tmp_path / "other"), objects), sends=True)


async def test_files_are_listed_by_path_without_links_and_oddities(world: World):
    world.write("b")
    world.write("a/c", b"12345")
    (world.folder / "link").symlink_to("b")
    os.mkfifo(world.folder / "pipe")
    await world.collected()

    assert await world.reader.list(KEY) == [Artifact("a/c", 5), Artifact("b", 4)]


async def test_a_name_that_is_no_utf8_is_listed_and_opened_by_its_escape(world: World):
    world.write(b"bad\xff\xfe name")
    await world.collected()

    [artifact] = await world.reader.list(KEY)
    assert artifact.path == "bad\\xff\\xfe name"
    assert await world.content(artifact.path) == b"data"


async def test_a_backslash_in_a_name_is_a_backslash(world: World):
    world.write("a\\xffb", b"plain")
    await world.collected()

    assert await world.content("a\\xffb") == b"plain"


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "a b",
        "100%",
        "ünï/🔑",
        "x" * 250 + "/" + "y" * 250,
        "a?b#c",
        "../x".replace("/", "_"),
    ],
)
async def test_any_name_comes_back_as_it_was(world: World, name):
    world.write(name, b"content")
    await world.collected()

    assert await world.reader.list(KEY) == [Artifact(name, 7)]
    assert await world.content(name) == b"content"


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/", "a", "a/", "/etc/passwd", "../x", "a/../../x", "a//b", "./a/b", "a/b\0", "x\ud800",
             "link", "folder/secret", "pipe", "\\x2e\\x2e/secret", "a\\x00", "manifest.json"]
)  # fmt: skip
async def test_nothing_but_a_plain_file_beneath_the_attempt_is_opened(world: World, tmp_path, path):
    (tmp_path / "secret").write_text("secret")
    world.write("a/b")
    (world.folder / "link").symlink_to(tmp_path / "secret")
    (world.folder / "folder").symlink_to(tmp_path)
    os.mkfifo(world.folder / "pipe")
    await world.collected()

    assert await world.reader.open(KEY, path) is None


async def test_a_missing_attempt_has_nothing(world: World):
    other = AttemptKey("b" * 16, 1)

    assert await world.reader.list(other) == []
    assert await world.reader.open(other, "a") is None
    await world.reader.delete(other)


async def test_a_large_file_is_read_whole_and_from_anywhere(world: World):
    data = os.urandom(1 << 20) * 9
    world.write("large", data)
    world.write("empty", b"")
    await world.collected()

    assert await world.content("large") == data
    assert await world.content("large", offset=5_000_000) == data[5_000_000:]
    assert await world.content("empty") == b""


async def test_an_attempt_that_left_nothing_is_no_matter(world: World):
    world.folder.mkdir(parents=True)
    await world.collected()

    assert await world.reader.list(KEY) == []


async def test_artifacts_are_deleted_by_attempt_and_by_job(world: World):
    second = AttemptKey(KEY.uid, 2)
    world.write("a", b"x" * 5000)
    world.write("a", key=second)
    await world.collected()
    await world.collected(second)
    assert await world.reader.size_bytes() >= 5000
    await world.reader.delete(KEY)
    assert [len(await world.reader.list(key)) for key in (KEY, second)] == [0, 1]
    await world.reader.delete_job(KEY.uid)

    assert await world.reader.size_bytes() == 0
    assert await world.reader.list(second) == []
