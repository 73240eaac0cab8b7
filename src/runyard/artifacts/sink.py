"""Keeps files that come from afar in an attempt's directory: whole or not at all, and never outside of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterable
from pathlib import Path

from runyard.artifacts.port import ARTIFACT_BYTES_MAX, ARTIFACTS_MAX
from runyard.model.errors import Invalid

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileArtifactSink:
    """The sink of one attempt. What a broken-off call wrote lies beside the directory until the job is deleted."""

    def __init__(
        self, directory: Path, *, bytes_max: int = ARTIFACT_BYTES_MAX, files_max: int = ARTIFACTS_MAX
    ) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._sizes: dict[str, int] | None = None
        self._loading = asyncio.Lock()
        self._used = 0

    async def store(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        parts = parts_of(path)
        sizes = await self._known_sizes()
        name = "/".join(parts)
        if name not in sizes and len(sizes) >= self._files_max:
            raise Invalid(f"artifact {path!r}: the attempt has {self._files_max} files already", field="path")
        draft = self._directory.parent / f".{self._directory.name}-{secrets.token_hex(8)}"
        size = 0
        try:
            fd = await asyncio.to_thread(_create, draft)
            try:
                async for chunk in chunks:
                    size, self._used = size + len(chunk), self._used + len(chunk)
                    if self._used > self._bytes_max:
                        raise Invalid(
                            f"artifact {path!r}: the attempt's files are more than {self._bytes_max} bytes",
                            field="path",
                        )
                    await asyncio.to_thread(_write_all, fd, chunk)
            finally:
                os.close(fd)
            await asyncio.to_thread(_put_in_place, draft, self._directory, parts)
        except BaseException:
            self._used -= size
            draft.unlink(missing_ok=True)
            raise
        self._used -= sizes.get(name, 0)
        sizes[name] = size

    async def _known_sizes(self) -> dict[str, int]:
        async with self._loading:
            if self._sizes is None:
                self._sizes = await asyncio.to_thread(_sizes_in, self._directory)
                self._used += sum(self._sizes.values())
        return self._sizes


def parts_of(path: str) -> list[str]:
    """The names of a relative path. Raises Invalid for one that leaves its folder, or is none."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or not parts or ".." in parts or "\0" in path:
        raise Invalid(f"artifact {path!r} is no path within the workspace", field="path")
    return parts


def _sizes_in(directory: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            file = os.path.join(folder, name)
            found[os.path.relpath(file, directory)] = os.stat(file, follow_symlinks=False).st_size
    return found


def _create(draft: Path) -> int:
    draft.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(draft, _NEW_FLAGS, 0o600)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _put_in_place(draft: Path, directory: Path, parts: list[str]) -> None:
    """Moves it beneath the directory, folder after folder, each opened beneath the one before. Raises Invalid where a
    file or a link is in the way."""
    directory.mkdir(mode=0o700, exist_ok=True)
    shown = "/".join(parts)
    at = os.open(directory, _FOLDER_FLAGS)
    try:
        for part in parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=at)
            below = os.open(part, _FOLDER_FLAGS, dir_fd=at)
            os.close(at)
            at = below
        os.replace(draft, parts[-1], dst_dir_fd=at)
    except OSError as error:
        raise Invalid(f"artifact {shown!r} cannot be kept: {error.strerror}", field="path") from error
    finally:
        os.close(at)
