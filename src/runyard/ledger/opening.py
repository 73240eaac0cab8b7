"""Which ledger a URL means."""

from __future__ import annotations

from runyard.ledger.port import Ledger
from runyard.ledger.sqlite.ledger import MEMORY, SqliteLedger
from runyard.model.clock import Clock
from runyard.model.errors import ConfigError

_SQLITE = "sqlite://"
_CURE = "write sqlite:///absolute/path/ledger.db"


def create_ledger(url: str, *, clock: Clock, is_threaded: bool = True) -> Ledger:
    """A ledger still to be opened: `sqlite:///absolute/path`, or `sqlite://:memory:` for tests. `clock` is the
    database's clock where the database has none of its own. `is_threaded` False: see SqliteLedger.

    Raises ConfigError for any other URL.
    """
    if url.startswith(("postgresql://", "postgres://")):
        raise ConfigError(
            "[ledger] url: PostgreSQL comes with the next release; this one keeps its ledger in SQLite",
            field="ledger.url",
            cure=_CURE,
        )
    path = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or not (
        path == MEMORY or (path.startswith("/") and not path.endswith("/"))
    ):
        raise ConfigError(f"[ledger] url: {url!r} names no ledger", field="ledger.url", cure=_CURE)
    return SqliteLedger(path, clock=clock, is_threaded=is_threaded)
