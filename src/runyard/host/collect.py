"""What an attempt leaves: artifacts copied out of the workspace, and outputs read.

Runs in the shim after the last step, when no process of the job lives. Regular files only, reached beneath an open
directory, no link followed, nothing else opened; bounded in number, bytes, time and by the disk's reserve, holes kept
as holes. What is missing or too much is said, it does not fail the job.
"""

from __future__ import annotations

import errno
import fnmatch
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from runyard.host.beneath import UnsafePath, open_regular
from runyard.host.plan import Plan

FILES_MAX = 10_000
ENTRIES_MAX = 200_000
DEPTH_MAX = 64
OUTPUT_BYTES_MAX = 64 * 1024
OUTPUTS_MAX = 64
_OUTPUT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 8 << 20
_SORTED_MAX = 1000  # a directory's entries are taken in order, as far as that needs no memory

Say = Callable[[str], None]
MustEnd = Callable[[], str | None]
"""Asked before each file and each chunk: why collecting must end now, or None."""


class TooMuch(Exception):
    """A bound was reached; what was copied so far stays."""


class Copier(Protocol):
    """Where what matches goes. Both raise TooMuch."""

    def check(self) -> None: ...

    def copy(self, source: int, path: str) -> None:
        """Takes an open regular file, under its path in the workspace."""
        ...


def collect_artifacts(plan: Plan, workspace: str, say: Say, must_end: MustEnd = lambda: None) -> int:
    """Copies what the globs match into the artifact directory, by its path in the workspace. Returns how many."""
    copier = _DirectoryCopier(
        plan.artifact_directory, plan.artifact_bytes_max, plan.disk.reserve_bytes, must_end
    )
    return gather(plan.artifacts, workspace, copier, say)


def gather(patterns: Sequence[str], workspace: str, copier: Copier, say: Say) -> int:
    """Hands what the globs match to `copier`, each file once. Returns how many."""
    if not patterns:
        return 0
    collector = _Collector(copier, say)
    root_fd = os.open(workspace, _DIRECTORY)
    try:
        for pattern in patterns:
            before = len(collector.copied)
            collector.match(root_fd, _parts(pattern), "")
            if len(collector.copied) == before:
                say(f"artifacts: nothing matches {pattern!r}")
    except TooMuch as error:
        say(f"artifacts: {error}; the rest is left out")
    finally:
        os.close(root_fd)
    return len(collector.copied)


def _parts(pattern: str) -> list[str]:
    """A run of `**` is one: each would look at everything again."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    return [part for index, part in enumerate(parts) if part != "**" or parts[index - 1 : index] != ["**"]]


class _Collector:
    def __init__(self, copier: Copier, say: Say) -> None:
        self._copier = copier
        self._say = say
        self._entries = 0
        self.copied: set[str] = set()

    def match(self, directory_fd: int, parts: Sequence[str], prefix: str) -> None:
        """Takes what `parts` match beneath the open directory; a directory that is matched is taken whole."""
        if not parts or prefix.count("/") > DEPTH_MAX:
            return
        head, rest = parts[0], parts[1:]
        takes_all = head == "**" and not rest
        if head == "**" and rest:
            self.match(directory_fd, rest, prefix)
        for name, mode in self._entries_of(directory_fd):
            path = prefix + name
            if stat.S_ISDIR(mode):
                if head == "**":
                    self._descend(directory_fd, name, parts, path)
                elif fnmatch.fnmatchcase(name, head):
                    self._descend(directory_fd, name, rest or ["**"], path)
            elif stat.S_ISREG(mode) and (takes_all or (not rest and fnmatch.fnmatchcase(name, head))):
                self._copy(directory_fd, name, path)

    def _descend(self, directory_fd: int, name: str, parts: Sequence[str], path: str) -> None:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=directory_fd)
        except OSError as error:
            self._say(f"artifacts: {path}: {error.strerror}")
            return
        try:
            self.match(fd, parts, path + "/")
        finally:
            os.close(fd)

    def _entries_of(self, directory_fd: int) -> Iterator[tuple[str, int]]:
        with os.scandir(directory_fd) as entries:
            while names := sorted(entry.name for entry in itertools.islice(entries, _SORTED_MAX)):
                self._copier.check()
                for name in names:
                    self._entries += 1
                    if self._entries > ENTRIES_MAX:
                        raise TooMuch(f"more than {ENTRIES_MAX} files and folders were looked at")
                    yield name, os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode

    def _copy(self, directory_fd: int, name: str, path: str) -> None:
        if path in self.copied:
            return
        if len(self.copied) >= FILES_MAX:
            raise TooMuch(f"more than {FILES_MAX} files match")
        try:
            source = open_regular(directory_fd, name)
        except (OSError, UnsafePath) as error:
            self._say(f"artifacts: {path}: {error}")
            return
        try:
            self._copier.copy(source, path)
            self.copied.add(path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self._say(f"artifacts: {path[:200]}…: {error.strerror}")
        finally:
            os.close(source)


class _DirectoryCopier:
    """Copies files' data, not their holes, while time, bytes and disk last. What was copied in part is removed."""

    def __init__(self, target: str, bytes_max: int, reserve_bytes: int, must_end: MustEnd) -> None:
        self._target = target
        self._bytes_max = self._bytes_left = bytes_max
        self._reserve_bytes = reserve_bytes
        self._must_end = must_end

    def check(self) -> None:
        if why := self._must_end():
            raise TooMuch(why)

    def copy(self, source: int, path: str) -> None:
        target, shown = os.path.join(self._target, path), path
        seen = os.fstat(source)
        if min(seen.st_size, seen.st_blocks * 512) > self._bytes_left:
            raise TooMuch(f"more than {self._bytes_max} bytes match, at {shown}")
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for begin, end in _data(source, seen.st_size):
                self._copy_range(source, fd, begin, end, shown)
            os.ftruncate(fd, seen.st_size)
        except BaseException:
            os.unlink(target)
            raise
        finally:
            os.close(fd)

    def _copy_range(self, source: int, fd: int, begin: int, end: int, shown: str) -> None:
        os.lseek(fd, begin, os.SEEK_SET)
        while begin < end:
            self.check()
            room = os.fstatvfs(fd)
            wanted = min(end - begin, _COPY_BYTES)
            if room.f_bavail * room.f_frsize < self._reserve_bytes + wanted:
                raise TooMuch("the disk has no more free than the pool's disk_reserve")
            if wanted > self._bytes_left:
                raise TooMuch(f"more than {self._bytes_max} bytes match, at {shown}")
            copied = os.sendfile(fd, source, begin, wanted)
            if not copied:
                return
            begin += copied
            self._bytes_left -= copied


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file that hold data."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, end


def read_outputs(plan: Plan, workspace: str, outputs: str, say: Say) -> dict[str, str]:
    """The job's named outputs, then what its steps wrote to $RUNYARD_OUTPUTS, a name each."""
    found: dict[str, str] = {}
    for name, path in plan.outputs.items():
        _read_output(workspace, path, name, found, say)
    with os.scandir(outputs) as entries:
        names = sorted(entry.name for entry in itertools.islice(entries, _SORTED_MAX))
    for name in names[:OUTPUTS_MAX]:
        if _OUTPUT_NAME.fullmatch(name):
            _read_output(outputs, name, name, found, say)
        else:
            say(f"outputs: {name!r} is no name for an output")
    return found


def _read_output(directory: str, path: str, name: str, found: dict[str, str], say: Say) -> None:
    directory_fd = os.open(directory, _DIRECTORY)
    try:
        fd = open_regular(directory_fd, path)
        with os.fdopen(fd, "rb") as file:
            content = file.read(OUTPUT_BYTES_MAX + 1)
        if len(content) > OUTPUT_BYTES_MAX:
            say(f"outputs: {path} is longer than {OUTPUT_BYTES_MAX} bytes and was left out")
        else:
            found[name] = content.decode()
    except UnicodeDecodeError:
        say(f"outputs: {path} is not UTF-8 and was left out")
    except FileNotFoundError:
        say(f"outputs: {path} is not there")
    except (OSError, UnsafePath) as error:
        say(f"outputs: {path}: {error}")
    finally:
        os.close(directory_fd)
