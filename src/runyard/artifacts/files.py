"""Artifacts as plain files in `<root>/<uid>/<number>/`, opened beneath an open folder without following any link."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import re
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from runyard.artifacts.port import ARTIFACTS_MAX, Artifact, ArtifactSink, OpenArtifact
from runyard.artifacts.sink import FileArtifactSink
from runyard.model.attempt import AttemptKey

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that a job left there must not wait for a writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SENT_SUFFIX = ".sent"
_ESCAPED_BYTE = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(slots=True)
class OpenArtifactFile:
    fd: int
    size: int

    async def read(self, offset: int, limit: int) -> bytes:
        return await asyncio.to_thread(os.pread, self.fd, limit, offset)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class FileArtifactStore:
    """Owns `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.stat().st_uid == os.geteuid():
            root.chmod(0o700)  # an older release's was open: the folders in it are named after jobs

    def sink(self, key: AttemptKey) -> ArtifactSink:
        return FileArtifactSink(self.directory(key))

    def directory(self, key: AttemptKey) -> Path:
        return self._root / key.uid / str(key.number)

    def attempts(self) -> builtins.list[AttemptKey]:
        """Those that left something here."""
        return [
            AttemptKey(folder.name, int(number.name))
            for folder in self._root.iterdir()
            if folder.is_dir()
            for number in folder.iterdir()
            if number.name.isdecimal()
        ]

    def clean(self, *, older_than_s: float) -> None:
        """Removes what was sent elsewhere and is only partly gone, and the folders of jobs that have nothing here. Not
        at once: the next attempt may be making its own."""
        for folder in self._root.iterdir():
            with contextlib.suppress(OSError):
                for sent in folder.glob(f".*{SENT_SUFFIX}"):
                    shutil.rmtree(sent, ignore_errors=True)
                if folder.stat().st_mtime < time.time() - older_than_s:
                    folder.rmdir()

    async def list(self, key: AttemptKey) -> builtins.list[Artifact]:
        return await asyncio.to_thread(_list_files, self.directory(key))

    async def open(self, key: AttemptKey, path: str) -> OpenArtifact | None:
        return await asyncio.to_thread(_open_beneath, self.directory(key), path)

    async def delete(self, key: AttemptKey) -> None:
        await asyncio.to_thread(shutil.rmtree, self.directory(key), ignore_errors=True)

    async def delete_job(self, uid: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / uid, ignore_errors=True)

    async def size_bytes(self) -> int:
        return await asyncio.to_thread(_disk_bytes, self._root)


def _list_files(directory: Path) -> list[Artifact]:
    found: list[Artifact] = []
    for folder, folders, names in os.walk(os.fsencode(directory)):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                status = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:  # sent elsewhere, or deleted, while we looked
                continue
            if stat.S_ISREG(status.st_mode):
                relative = os.path.relpath(path, os.fsencode(directory))
                found.append(Artifact(relative.decode("utf-8", "backslashreplace"), status.st_size))
            if len(found) == ARTIFACTS_MAX:
                return sorted(found, key=lambda artifact: artifact.path)
    return sorted(found, key=lambda artifact: artifact.path)


def _open_beneath(directory: Path, path: str) -> OpenArtifactFile | None:
    try:
        exact = path.encode()
    except UnicodeEncodeError:
        return None
    unescaped = _ESCAPED_BYTE.sub(lambda match: bytes([int(match[1], 16)]), exact)
    for candidate in dict.fromkeys((exact, unescaped)):
        parts = candidate.split(b"/")
        if b"\0" in candidate or any(part in (b"", b".", b"..") for part in parts):
            continue
        fd = open_parts(directory, parts)
        if fd is None:
            continue
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return OpenArtifactFile(fd, status.st_size)
        os.close(fd)
    return None


def open_parts(directory: Path, parts: list[bytes]) -> int | None:
    """Opens part after part, each beneath the folder opened before it. None where one is missing or a link."""
    try:
        at = os.open(directory, _DIRECTORY_FLAGS)
    except OSError:
        return None
    try:
        for part in parts[:-1]:
            below = os.open(part, _DIRECTORY_FLAGS, dir_fd=at)
            os.close(at)
            at = below
        return os.open(parts[-1], _FILE_FLAGS, dir_fd=at)
    except OSError:
        return None
    finally:
        os.close(at)


def _disk_bytes(root: Path) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name), follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
