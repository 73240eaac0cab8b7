"""Fills the hash of files into a cache's key: `{sha256:PATTERN}`, over the workspace as it is before the first step.

Regular files only, reached beneath the open workspace, no link followed; bounded in number and bytes.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence

from runyard.host.beneath import UnsafePath, open_regular
from runyard.host.caches.store import CacheFailed, MustEnd

FILES_MAX = 10_000
ENTRIES_MAX = 200_000
DEPTH_MAX = 64
BYTES_MAX = 1 << 30
_TEMPLATE = re.compile(r"\{sha256:([^{}]+)\}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class KeyTemplates:
    """The keys of one attempt; each pattern is looked up once. `unmatched` are the patterns that no file matches."""

    def __init__(self, workspace: str, must_end: MustEnd) -> None:
        self._workspace = workspace
        self._must_end = must_end
        self._digests: dict[str, str] = {}
        self.unmatched: set[str] = set()

    def fill(self, template: str) -> str:
        """Raises CacheFailed where there is too much to hash."""
        return _TEMPLATE.sub(lambda match: self._digest_of(match[1]), template)

    def _digest_of(self, pattern: str) -> str:
        if pattern not in self._digests:
            self._digests[pattern] = self._hash_matches(pattern)
        return self._digests[pattern]

    def _hash_matches(self, pattern: str) -> str:
        """Over path and content of each, in the order of their paths."""
        digest, bytes_left = hashlib.sha256(), BYTES_MAX
        root_fd = os.open(self._workspace, _DIRECTORY)
        try:
            search = _Search(self._must_end)
            paths = sorted(set(search.match(root_fd, _parts(pattern), "")))
            if not paths:
                self.unmatched.add(pattern)
            for path in paths:
                size, content = self._hash_file(root_fd, path, bytes_left)
                bytes_left -= size
                digest.update(os.fsencode(path) + b"\0" + content)
        except OSError as error:
            raise CacheFailed(f"{{sha256:{pattern}}}: {error.strerror}") from None
        finally:
            os.close(root_fd)
        return digest.hexdigest()

    def _hash_file(self, root_fd: int, path: str, bytes_left: int) -> tuple[int, bytes]:
        digest, size = hashlib.sha256(), 0
        try:
            fd = open_regular(root_fd, path)
        except (OSError, UnsafePath):
            return 0, b""
        with os.fdopen(fd, "rb") as file:
            while data := file.read(1 << 20):
                size += len(data)
                if size > bytes_left:
                    raise CacheFailed(f"its key takes the hash of more than {BYTES_MAX >> 20} MiB")
                if why := self._must_end():
                    raise CacheFailed(why)
                digest.update(data)
        return size, digest.digest()


class _Search:
    """A pattern's files, `**` over any number of folders."""

    def __init__(self, must_end: MustEnd) -> None:
        self._must_end = must_end
        self._entries = 0
        self._found = 0

    def match(self, directory_fd: int, parts: Sequence[str], prefix: str) -> Iterator[str]:
        if not parts or prefix.count("/") > DEPTH_MAX:
            return
        head, rest = parts[0], parts[1:]
        if head == "**" and rest:
            yield from self.match(directory_fd, rest, prefix)
        for name, mode in self._list(directory_fd):
            is_match = head == "**" or fnmatch.fnmatchcase(name, head)
            if stat.S_ISDIR(mode) and is_match and (rest or head == "**"):
                yield from self._descend(directory_fd, name, parts if head == "**" else rest, prefix)
            elif stat.S_ISREG(mode) and is_match and not rest:
                self._found += 1
                if self._found > FILES_MAX:
                    raise CacheFailed(f"its key takes the hash of more than {FILES_MAX} files")
                yield prefix + name

    def _descend(self, directory_fd: int, name: str, parts: Sequence[str], prefix: str) -> Iterator[str]:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=directory_fd)
        except OSError:
            return
        try:
            yield from self.match(fd, parts, f"{prefix}{name}/")
        finally:
            os.close(fd)

    def _list(self, directory_fd: int) -> Iterator[tuple[str, int]]:
        with os.scandir(directory_fd) as entries:
            for entry in entries:
                self._entries += 1
                if self._entries > ENTRIES_MAX:
                    raise CacheFailed(f"its key looks at more than {ENTRIES_MAX} files and folders")
                if self._entries % 1000 == 0 and (why := self._must_end()):
                    raise CacheFailed(why)
                yield entry.name, entry.stat(follow_symlinks=False).st_mode


def _parts(pattern: str) -> list[str]:
    """A run of `**` is one: each would look at everything again."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    return [part for index, part in enumerate(parts) if part != "**" or parts[index - 1 : index] != ["**"]]
