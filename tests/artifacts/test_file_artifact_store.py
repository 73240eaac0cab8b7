from __future__ import annotations

import os
from pathlib import Path

import pytest

from runyard.artifacts.files import FileArtifactStore
from runyard.artifacts.port import Artifact
from runyard.model.attempt import AttemptKey

KEY = AttemptKey("a" * 16, 1)


@pytest.fixture
def store(tmp_path: Path) -> FileArtifactStore:
    made = FileArtifactStore(tmp_path / "artifacts")
    made.directory(KEY).mkdir(parents=True)
    return made


def write(store: FileArtifactStore, path: str | bytes, data: bytes = b"data") -> None:
    file = os.path.join(os.fsencode(store.directory(KEY)), os.fsencode(path))
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with open(file, "wb") as opened:
        opened.write(data)


async def content(store: FileArtifactStore, path: str) -> bytes | None:
    file = await store.open(KEY, path)
    if file is None:
        return None
    data = await file.read(0, 1000)
    file.close()
    return data


async def test_files_are_listed_by_path_without_links_and_oddities(store):
    write(store, "b")
    write(store, "a/c", b"12345")
    (store.directory(KEY) / "link").symlink_to("b")
    os.mkfifo(store.directory(KEY) / "pipe")

    assert await store.list(KEY) == [Artifact("a/c", 5), Artifact("b", 4)]


async def test_a_name_that_is_no_utf8_is_listed_and_opened_by_its_escape(store):
    write(store, b"bad\xff\xfe name")

    [artifact] = await store.list(KEY)
    assert artifact.path == "bad\\xff\\xfe name"
    assert await content(store, artifact.path) == b"data"


async def test_a_backslash_in_a_name_is_a_backslash(store):
    write(store, "a\\xffb", b"plain")

    assert await content(store, "a\\xffb") == b"plain"


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/", "a", "a/", "/etc/passwd", "../x", "a/../../x", "a//b", "./a/b", "a/b\0", "x\ud800",
             "link", "folder/secret", "pipe", "\\x2e\\x2e/secret", "a\\x00"]
)  # fmt: skip
async def test_nothing_but_a_plain_file_beneath_the_attempt_is_opened(store, tmp_path, path):
    (tmp_path / "secret").write_text("secret")
    write(store, "a/b")
    (store.directory(KEY) / "link").symlink_to(tmp_path / "secret")
    (store.directory(KEY) / "folder").symlink_to(tmp_path)
    os.mkfifo(store.directory(KEY) / "pipe")

    assert await store.open(KEY, path) is None


async def test_a_missing_attempt_has_nothing(store):
    other = AttemptKey("b" * 16, 1)

    assert await store.list(other) == []
    assert await store.open(other, "a") is None
    await store.delete(other)


async def test_artifacts_are_deleted_by_attempt_and_by_job(store):
    write(store, "a", b"x" * 5000)
    assert await store.size_bytes() >= 5000
    await store.delete(KEY)
    assert await store.list(KEY) == []
    write(store, "a")
    await store.delete_job(KEY.uid)

    assert await store.size_bytes() == 0


@pytest.mark.parametrize("was_there", [False, True])
async def test_only_its_own_user_may_list_the_root(tmp_path, was_there):
    root = tmp_path / "new" / "artifacts"
    if was_there:
        root.mkdir(mode=0o755, parents=True)
    FileArtifactStore(root)

    assert root.stat().st_mode & 0o777 == 0o700
