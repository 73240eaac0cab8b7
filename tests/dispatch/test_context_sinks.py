"""What a far place hands over through its context is kept by the stores, which it never sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from runyard.artifacts.files import FileArtifactStore
from runyard.dispatch.context import AttemptContext
from runyard.logs.files import FileLogStore
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Unreachable

KEY = AttemptKey("a" * 16, 1)


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[AttemptContext]:
    logs, artifacts = FileLogStore(tmp_path / "logs"), FileArtifactStore(tmp_path / "artifacts")
    yield AttemptContext(
        ledger=cast(Any, None),
        lease=cast(Any, None),
        key=KEY,
        log_directory=tmp_path,
        log_bytes_max=1,
        artifact_directory=tmp_path,
        log_sink=lambda: logs.sink(KEY),
        artifact_sink=lambda: artifacts.sink(KEY),
    )
    logs.close()


async def test_a_log_from_afar_is_continued_where_it_ended(context: AttemptContext) -> None:
    assert await context.log.size("000", "stdout") == 0
    await context.log.append("000", "stdout", 0, b"hello ")
    await context.log.append("000", "stdout", 0, b"hello world")
    assert await context.log.size("000", "stdout") == len(b"hello world")


async def test_artifacts_from_afar_are_kept(context: AttemptContext, tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    for _ in range(2):
        await context.store_artifact("out/report.txt", chunks())
    directory = tmp_path / "artifacts" / KEY.uid / "1"
    assert (directory / "out" / "report.txt").read_bytes() == b"one two"


async def test_a_disk_that_fails_is_told_as_a_place_that_is_asked_again(
    context: AttemptContext, tmp_path: Path
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    (tmp_path / "artifacts" / KEY.uid).write_text("in the way")
    with pytest.raises(Unreachable):
        await context.store_artifact("a", chunks())
