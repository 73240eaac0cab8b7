"""What the driver and the server raise, told apart by whose turn it is: ours (again, at once), the operator's
(LedgerUnavailable with its cure), or nobody's (a bug, let through)."""

from __future__ import annotations

import asyncpg

from runyard.model.errors import LedgerUnavailable

RETRIED = ("40001", "40P01")
"""serialization_failure, deadlock_detected: nothing was written; the same call again sees the world as it is now."""

# SQLSTATEs, or classes of them, and what cures them. The longest that fits counts.
_CURES = {
    "08": "check that the server runs and can be reached; the service goes on by itself",
    "57P": "the server is stopping or starting; the service goes on by itself",
    "57014": "the server took longer than the statement timeout: look for a long lock or a slow disk",
    "55P03": "another session holds a lock for long: look into pg_stat_activity and pg_locks",
    "53": "the server is out of disk, memory or connections: give it more",
    "28": "check the user and the password in [ledger] url, and pg_hba.conf",
    "3D": "create the database, or name another one in [ledger] url",
    "42501": "let this user create and write in the database",
    "25006": "it is a read-only standby: name the primary in [ledger] url",
    "25": "end the session's other program; the service goes on by itself",
    "58": "check the server's disk and its log",
    "XX": "look into the server's log; restore a backup if the data is damaged",
}


def sqlstate_of(error: BaseException) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def is_unavailable(error: BaseException) -> bool:
    """The database as a whole cannot be worked with now; nothing is known of the call's effect."""
    if isinstance(error, ValueError) and not isinstance(error, asyncpg.ClientConfigurationError):
        return False  # a value that the driver cannot send: the caller's
    if isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return True
    return _cure(sqlstate_of(error)) is not None


def unavailable(where: str, error: BaseException) -> LedgerUnavailable:
    cure = _cure(sqlstate_of(error)) or _CURES["08"]
    what = str(error) or type(error).__name__
    return LedgerUnavailable(
        f"ledger {where}: {what} ({sqlstate_of(error) or 'connection'}); {cure}", cure=cure
    )


def _cure(sqlstate: str) -> str | None:
    fitting = [key for key in _CURES if sqlstate and sqlstate.startswith(key)]
    return _CURES[max(fitting, key=len)] if fitting else None
