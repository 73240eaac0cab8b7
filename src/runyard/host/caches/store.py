"""Saved caches on disk: archives by their SHA-256, and one small file a key that names one; for any number of shims.

    <directory>/lock                      held for each change, never for long
    <directory>/new/<name>                an archive being written, locked by its writer
    <directory>/scopes/<scope>/keys/<sha256 of the key>
    <directory>/scopes/<scope>/archives/<sha256 of the content>

A key is complete or not there: the archive is in its place before the key names it. What a crash leaves (an archive
being written, one without a key, a key without one) is removed by the next save. A reader holds a shared lock on its
archive; one that is read is never removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runyard.host.caches.entry import Entry, Scope, StoredEntry, key_file, parse_entry
from runyard.host.caches.eviction import has_room, next_victim

KEY_CHARS_MAX = 4096
_READ_BYTES = 1 << 20
_ENTRY_BYTES_MAX = 64 * 1024
_LOCK_RETRY_S = 0.01
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

MustEnd = Callable[[], str | None]
"""Asked now and then: why the work must end, or None."""


class CacheFailed(Exception):
    """It could not be restored or saved; the message says why. Never a reason to fail a job."""


@dataclass(slots=True)
class Hit:
    """A saved cache, verified and open at its beginning. It stays whole until it is closed."""

    entry: Entry
    fd: int

    def close(self) -> None:
        os.close(self.fd)


@dataclass(slots=True)
class NewArchive:
    """A file being written, for reading and writing; gone when closed unless it was kept."""

    path: str
    fd: int

    def close(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        os.close(self.fd)


class CacheStore:
    """Owns `directory`, which only the service's own user may enter. `bytes_max` is of all archives together."""

    def __init__(self, directory: str, *, bytes_max: int, must_end: MustEnd = lambda: None) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._must_end = must_end
        for name in ("new", "scopes"):
            os.makedirs(f"{directory}/{name}", mode=0o700, exist_ok=True)
        os.chmod(directory, 0o700)

    # -- reading --------------------------------------------------------------------------------------------------

    def find(self, scope: Scope, key: str, restore: tuple[str, ...] = ()) -> Hit | None:
        """The cache saved under `key`; else for each prefix in turn the newest whose key begins with it. One that is
        damaged is removed and counts as not there. Raises CacheFailed where it must end first."""
        for entry in self._candidates(scope, key, restore):
            fd = self._open(entry)
            if fd is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._key_path(entry))
            return Hit(entry, fd)
        return None

    def has(self, scope: Scope, key: str) -> bool:
        """Whether something is saved under exactly this key."""
        entry = self._read_entry(scope.folder, key_file(key))
        return entry is not None and os.path.exists(self._archive_path(entry))

    def _candidates(self, scope: Scope, key: str, restore: tuple[str, ...]) -> Iterator[Entry]:
        exact = self._read_entry(scope.folder, key_file(key))
        if exact is not None:
            yield exact
        if not restore:
            return
        entries = sorted(self._entries(scope.folder), key=lambda entry: (-entry.saved_at, entry.key))
        for prefix in restore:
            yield from (entry for entry in entries if entry.key.startswith(prefix))

    def _open(self, entry: Entry) -> int | None:
        """The archive's descriptor, locked against removal, if its content is what was saved."""
        try:
            fd = os.open(self._archive_path(entry), _READ_FLAGS)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            is_whole = os.fstat(fd).st_size == entry.size_bytes and self._digest(fd) == entry.sha256
        except BlockingIOError:  # about to be removed
            is_whole = False
        except BaseException:
            os.close(fd)
            raise
        if is_whole:
            return fd
        os.close(fd)
        with self._locked():
            self._remove(entry)
        return None

    def _digest(self, fd: int) -> str:
        digest, buffer, offset = hashlib.sha256(), bytearray(_READ_BYTES), 0
        while count := os.preadv(fd, [buffer], offset):
            digest.update(memoryview(buffer)[:count])
            offset += count
            if why := self._must_end():
                raise CacheFailed(why)
        os.lseek(fd, 0, os.SEEK_SET)
        return digest.hexdigest()

    # -- saving ---------------------------------------------------------------------------------------------------

    def new_archive(self) -> NewArchive:
        """Where to write what shall be saved."""
        with self._locked():  # or a sweep could take it before it is locked
            path = f"{self._directory}/new/{secrets.token_hex(8)}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
        return NewArchive(path, fd)

    def keep(self, scope: Scope, key: str, archive: NewArchive) -> Entry | None:
        """Saves what was written, for good: a second save under a key changes nothing. None where somebody else saved
        the key meanwhile. Raises CacheFailed where there is no room."""
        if len(key) > KEY_CHARS_MAX:
            raise CacheFailed(f"its key is longer than {KEY_CHARS_MAX} characters")
        os.fsync(archive.fd)
        entry = Entry(
            scope=scope,
            key=key,
            sha256=self._digest(archive.fd),
            size_bytes=os.fstat(archive.fd).st_size,
            saved_at=time.time(),
        )
        with self._locked():
            if self.has(scope, key):
                return None
            self._make_room(entry)
            for kind in ("", "archives", "keys"):
                os.makedirs(self._folder(scope.folder, kind), mode=0o700, exist_ok=True)
            os.rename(archive.path, self._archive_path(entry))
            _sync(self._folder(scope.folder, "archives"))
            self._write_key(entry)
        return entry

    def _write_key(self, entry: Entry) -> None:
        path = self._key_path(entry)
        fd = os.open(
            f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(fd, "w") as file:
            file.write(entry.to_json())
            file.flush()
            os.fsync(fd)
        os.rename(f"{path}.new", path)
        _sync(os.path.dirname(path))

    def _make_room(self, incoming: Entry) -> None:
        stored, spared = self._sweep(), set[Entry]()
        while victim := next_victim(stored, incoming, bytes_max=self._bytes_max, spared=spared):
            if self._remove(victim):
                stored = [each for each in stored if each.entry != victim]
            else:
                spared.add(victim)
        if not has_room(stored, incoming, bytes_max=self._bytes_max):
            raise CacheFailed("the caches that are being read leave no room for it")

    def _sweep(self) -> list[StoredEntry]:
        """All that is saved. Removes what a crash left; the lock is held."""
        self._remove_abandoned()
        stored: list[StoredEntry] = []
        for folder in _names(f"{self._directory}/scopes"):
            entries = []
            for file in _names(self._folder(folder, "keys")):
                entry = self._read_entry(folder, file)
                if entry is None or not os.path.exists(self._archive_path(entry)):
                    os.unlink(f"{self._folder(folder, 'keys')}/{file}")
                else:
                    entries.append(entry)
            named = {entry.sha256 for entry in entries}
            for digest in set(_names(self._folder(folder, "archives"))) - named:
                os.unlink(f"{self._folder(folder, 'archives')}/{digest}")
            stored += [
                StoredEntry(entry=entry, used_at=os.stat(self._key_path(entry)).st_mtime) for entry in entries
            ]
        return stored

    def _remove_abandoned(self) -> None:
        """Archives whose writer died: their lock is free."""
        for name in _names(f"{self._directory}/new"):
            path = f"{self._directory}/new/{name}"
            with contextlib.suppress(OSError), _open_exclusively(path):
                os.unlink(path)

    def _remove(self, entry: Entry) -> bool:
        """False where it is being read. The lock is held."""
        archive = self._archive_path(entry)
        with contextlib.suppress(FileNotFoundError):
            try:
                with _open_exclusively(archive):
                    self._unlink_key(entry)
                    if all(other.sha256 != entry.sha256 for other in self._entries(entry.scope.folder)):
                        os.unlink(archive)
            except BlockingIOError:
                return False
        self._unlink_key(entry)
        return True

    def _unlink_key(self, entry: Entry) -> None:
        """Only while it still names this archive: it may have been saved anew."""
        if self._read_entry(entry.scope.folder, entry.file) == entry:
            os.unlink(self._key_path(entry))

    # -- names ----------------------------------------------------------------------------------------------------

    def _folder(self, folder: str, kind: str) -> str:
        return f"{self._directory}/scopes/{folder}/{kind}"

    def _key_path(self, entry: Entry) -> str:
        return f"{self._folder(entry.scope.folder, 'keys')}/{entry.file}"

    def _archive_path(self, entry: Entry) -> str:
        return f"{self._folder(entry.scope.folder, 'archives')}/{entry.sha256}"

    def _entries(self, folder: str) -> Iterator[Entry]:
        for file in _names(self._folder(folder, "keys")):
            entry = self._read_entry(folder, file)
            if entry is not None:
                yield entry

    def _read_entry(self, folder: str, file: str) -> Entry | None:
        try:
            fd = os.open(f"{self._folder(folder, 'keys')}/{file}", _READ_FLAGS)
        except OSError:
            return None
        with os.fdopen(fd, errors="replace") as opened:
            return parse_entry(opened.read(_ENTRY_BYTES_MAX), folder=folder, file=file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(f"{self._directory}/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if why := self._must_end():
                        raise CacheFailed(why) from None
                    time.sleep(_LOCK_RETRY_S)
            yield
        finally:
            os.close(fd)


@contextlib.contextmanager
def _open_exclusively(path: str) -> Iterator[None]:
    """Holds the file alone. Raises BlockingIOError where somebody has it."""
    fd = os.open(path, _READ_FLAGS)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
