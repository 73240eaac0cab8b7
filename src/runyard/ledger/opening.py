"""Which ledger a URL means."""

from __future__ import annotations

from runyard.ledger.port import Ledger
from runyard.ledger.sqlite.ledger import MEMORY, SqliteLedger
from runyard.model.clock import Clock
from runyard.model.errors import ConfigError

_SQLITE = "sqlite://"
_CURE = "write sqlite:///absolute/path/ledger.db, or postgresql://user:password@host:5432/database"


def create_ledger(url: str, *, clock: Clock, is_threaded: bool = True) -> Ledger:
    """A ledger still to be opened: `sqlite:///absolute/path`, or `sqlite://:memory:` for tests, or `postgresql://…`.
    `clock` is the database's clock where the database has none of its own. `is_threaded` False: see SqliteLedger.

    Raises ConfigError for any other URL, and where the driver of PostgreSQL is not installed.
    """
    if url.startswith(("postgresql://", "postgres://")):
        return _create_postgresql_ledger(url)
    path = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or not (
        path == MEMORY or (path.startswith("/") and not path.endswith("/"))
    ):
        raise ConfigError(f"[ledger] url: {url!r} names no ledger", field="ledger.url", cure=_CURE)
    return SqliteLedger(path, clock=clock, is_threaded=is_threaded)


def _create_postgresql_ledger(url: str) -> Ledger:
    """Imported only here: who keeps the ledger in SQLite needs no driver."""
    try:
        from runyard.ledger.postgresql.ledger import PostgresqlLedger
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise ConfigError(
            "[ledger] url: the driver of PostgreSQL is not installed",
            field="ledger.url",
            cure="install it: pip install 'runyard[postgres]'",
        ) from None
    return PostgresqlLedger(url)
