"""What an attempt leaves: artifacts copied out of the workspace, and outputs read.

Runs in the shim after the last step, when no process of the job lives. Regular files only, reached beneath an open
directory, no link followed, nothing else opened; bounded in number and bytes. What is missing or too much is said,
it does not fail the job.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence

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

Say = Callable[[str], None]


class _TooMuch(Exception):
    """A bound was reached; what was copied so far stays."""


def collect_artifacts(plan: Plan, workspace: str, say: Say) -> int:
    """Copies what the globs match into the artifact directory, by its path in the workspace. Returns how many."""
    if not plan.artifacts:
        return 0
    collector = _Collector(plan.artifact_directory, plan.artifact_bytes_max, say)
    root_fd = os.open(workspace, _DIRECTORY)
    try:
        for pattern in plan.artifacts:
            before = len(collector.copied)
            collector.match(root_fd, [part for part in pattern.split("/") if part not in ("", ".")], "")
            if len(collector.copied) == before:
                say(f"artifacts: nothing matches {pattern!r}")
    except _TooMuch as error:
        say(f"artifacts: {error}; the rest is left out")
    finally:
        os.close(root_fd)
    return len(collector.copied)


class _Collector:
    def __init__(self, target: str, bytes_max: int, say: Say) -> None:
        self._target = target
        self._bytes_left = bytes_max
        self._bytes_max = bytes_max
        self._say = say
        self._entries = 0
        self.copied: set[str] = set()

    def match(self, directory_fd: int, parts: Sequence[str], prefix: str) -> None:
        """Takes what `parts` match beneath the open directory; a directory that is matched is taken whole."""
        if not parts or prefix.count("/") > DEPTH_MAX:
            return
        head, rest = parts[0], parts[1:]
        if head == "**":
            self.match(directory_fd, rest or ["*"], prefix)
        for name, mode in self._entries_of(directory_fd):
            path = prefix + name
            if stat.S_ISDIR(mode):
                if head == "**":
                    self._descend(directory_fd, name, parts, path)
                elif fnmatch.fnmatchcase(name, head):
                    self._descend(directory_fd, name, rest or ["**"], path)
            elif head != "**" and not rest and stat.S_ISREG(mode) and fnmatch.fnmatchcase(name, head):
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
            names = sorted(entry.name for entry in entries)
        for name in names:
            self._entries += 1
            if self._entries > ENTRIES_MAX:
                raise _TooMuch(f"more than {ENTRIES_MAX} files and folders were looked at")
            yield name, os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode

    def _copy(self, directory_fd: int, name: str, path: str) -> None:
        if path in self.copied:
            return
        if len(self.copied) >= FILES_MAX:
            raise _TooMuch(f"more than {FILES_MAX} files match")
        try:
            source = open_regular(directory_fd, name)
        except (OSError, UnsafePath) as error:
            self._say(f"artifacts: {path}: {error}")
            return
        try:
            size = os.fstat(source).st_size
            if size > self._bytes_left:
                raise _TooMuch(f"more than {self._bytes_max} bytes match, at {path}")
            self._bytes_left -= size
            _copy_file(source, os.path.join(self._target, path))
            self.copied.add(path)
        finally:
            os.close(source)


def _copy_file(source: int, target: str) -> None:
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while os.sendfile(fd, source, None, _COPY_BYTES):
            pass
    finally:
        os.close(fd)


def read_outputs(plan: Plan, workspace: str, outputs: str, say: Say) -> dict[str, str]:
    """The job's named outputs, then what its steps wrote to $RUNYARD_OUTPUTS, a name each."""
    found: dict[str, str] = {}
    for name, path in plan.outputs.items():
        _read_output(workspace, path, name, found, say)
    for name in sorted(os.listdir(outputs))[:OUTPUTS_MAX]:
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
