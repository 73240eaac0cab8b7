"""The file: created for its owner only, locked for this process, opened with the pragmas that durability rests on."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from runyard.model.errors import LedgerUnavailable

BUSY_TIMEOUT_S = 5.0
WAL_PAGES_MAX = (
    16_384  # 64 MiB: hot index pages are folded into the file once per many writes, not at every one
)

# The database as a whole cannot be worked with: not the fault of one call, so the batch fails together.
_CURES = {
    sqlite3.SQLITE_FULL: "free some space on its file system; the service goes on by itself",
    sqlite3.SQLITE_IOERR: "check the disk and the kernel's log",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable for this user",
    sqlite3.SQLITE_CANTOPEN: "make the folder, and let this user write into it",
    sqlite3.SQLITE_PERM: "make the file and its folder writable for this user",
    sqlite3.SQLITE_CORRUPT: "restore a backup; `sqlite3 FILE .recover` shows what is left",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite file; name another one in [ledger] url",
    sqlite3.SQLITE_BUSY: "end the other program that holds the file open for writing",
    sqlite3.SQLITE_LOCKED: "end the other program that holds the file open for writing",
    sqlite3.SQLITE_PROTOCOL: "SQLite needs a local file system, not NFS",
    sqlite3.SQLITE_NOMEM: "give the service more memory",
}


def connect(path: str) -> sqlite3.Connection:
    """A connection without implicit transactions, for whichever thread owns it. `:memory:` is its own database."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S, cached_statements=512
    )
    connection.row_factory = sqlite3.Row
    connection.create_function("casefold", 1, _casefold, deterministic=True)
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -32000")
    return connection


def _casefold(text: str | None) -> str | None:
    """SQLite's lower() knows ASCII alone."""
    return None if text is None else text.casefold()


def connect_writer(path: str) -> sqlite3.Connection:
    """WAL so that readers never block it; FULL because an acknowledged job survives a power cut."""
    connection = connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_PAGES_MAX * 4096}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: str) -> sqlite3.Connection:
    connection = connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def is_database_wide(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and _primary_code(error) in _CURES


def unavailable(path: str, error: sqlite3.Error) -> LedgerUnavailable:
    code = _primary_code(error)
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    cure = _CURES.get(code, "see the cause")
    return LedgerUnavailable(f"ledger {path}: {error} ({name}); {cure}", cure=cure)


def _primary_code(error: sqlite3.Error) -> int:
    """Extended codes carry the primary one in their low byte."""
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


class FileLock:
    """`<file>.lock`, held for the life of the ledger. The kernel lets go of it however the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path) -> FileLock:
        """Raises LedgerUnavailable naming the process that holds it."""
        lock_path = path.with_name(path.name + ".lock")
        try:
            descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _file_error(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise LedgerUnavailable(
                f"ledger {path}: process {holder} already uses it, and SQLite serves one at a time",
                cure=f"stop process {holder}, or use another data folder",
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # a full disk: the lock itself holds all the same, but say it early
            os.close(descriptor)
            raise _file_error(path, error) from error
        return cls(descriptor)

    def release(self) -> None:
        os.close(self._descriptor)


def create_file(path: Path) -> None:
    """An empty file that only its owner reads; the -wal and -shm files beside it inherit its mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _file_error(path, error) from error


def _file_error(path: Path, error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"ledger {path}: {error.strerror}: {error.filename or path.parent}; "
        "make the folder, and let this user write into it",
        cure="make the folder, and let this user write into it",
    )
