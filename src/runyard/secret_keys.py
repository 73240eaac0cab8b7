"""From `[secrets]` and the data folder to the store of secrets: which keys there are, and what to say where one is
missing."""

from __future__ import annotations

import os
import secrets as dice
from collections.abc import Iterator, Sequence

import structlog

from runyard.config import Settings
from runyard.installation import Folders, kept_text
from runyard.ledger.port import Ledger
from runyard.model.errors import ConfigError
from runyard.secrets.sealing import MAKE_KEY, KeyRing, new_key_text, read_key_ring
from runyard.secrets.store import SecretStore

log = structlog.get_logger()

_SHARED_CURE = (
    f"make one with `{MAKE_KEY}`, the same for all services on this ledger, and name its file in secrets.keys"
)


async def open_secrets(settings: Settings, folders: Folders, ledger: Ledger) -> SecretStore:
    """Raises ConfigError for a key that cannot be read, and for secrets in a shared ledger with no key at all."""
    ring = _key_ring(settings, folders)
    store = SecretStore(ledger, ring, realm=await ledger.secret_realm(dice.token_hex(16)))
    unreadable = await store.unreadable()
    count = sum(unreadable.values())
    if count and ring is None:
        raise ConfigError(
            f"the ledger holds {count} sealed secrets, and this service has no key",
            field="secrets.keys",
            cure=_SHARED_CURE,
        )
    if count:
        log.error(
            "secrets_unreadable",
            secrets=count,
            keys=", ".join(unreadable),
            cure="add those keys to secrets.keys and restart, or set the secrets again",
        )
    for note in key_notes(settings):
        log.warning("secrets_off", note=note)
    return store


def key_problems(settings: Settings) -> Iterator[str]:
    """What `open_secrets` would refuse, without a ledger."""
    for source in settings.secrets.keys:
        try:
            read_key_ring([source], os.environ)
        except ConfigError as error:
            yield f"{error.message} ({error.cure})"


def key_notes(settings: Settings) -> Sequence[str]:
    """What works, and not as one may expect."""
    if settings.secrets.keys or not settings.is_ledger_shared:
        return ()
    return (f"secrets.keys: none is configured, so secrets are off on this shared ledger; {_SHARED_CURE}",)


def _key_ring(settings: Settings, folders: Folders) -> KeyRing | None:
    """The configured keys, and behind them the one that was made before any was."""
    made = folders.secrets_key
    if not settings.secrets.keys and not settings.is_ledger_shared:
        kept_text(made, new_key_text)
    sources = [*settings.secrets.keys, *([str(made)] if made.exists() else [])]
    return read_key_ring(sources, os.environ)
