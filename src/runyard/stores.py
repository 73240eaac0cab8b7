"""From the settings to where logs and artifacts are kept: in folders, or in an object store behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from runyard.artifacts.files import FileArtifactStore
from runyard.artifacts.objects import ObjectArtifactStore
from runyard.artifacts.port import ArtifactStore
from runyard.artifacts.sending import ArtifactSender
from runyard.config import Settings
from runyard.installation import Folders
from runyard.ledger.port import Ledger
from runyard.logs.files import FileLogStore
from runyard.logs.objects import ObjectLogStore
from runyard.logs.port import LogStore
from runyard.logs.shipping import LogShipper
from runyard.model.attempt import AttemptKey, AttemptState
from runyard.model.errors import ConfigError, LedgerUnavailable
from runyard.object_store import ObjectStore, open_object_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """`loops` run as long as the service does. `before_settle` is to be awaited with each attempt that ended here."""

    logs: LogStore
    artifacts: ArtifactStore
    loops: tuple[tuple[str, Callable[[], Awaitable[None]]], ...]
    before_settle: Callable[[AttemptKey], Awaitable[None]]


def open_stores(settings: Settings, folders: Folders, ledger: Ledger) -> Stores:
    """Raises ConfigError."""
    ended = _Ended(ledger)
    local_logs, local_artifacts = FileLogStore(folders.logs), FileArtifactStore(folders.artifacts)
    logs: LogStore = local_logs
    artifacts: ArtifactStore = local_artifacts
    loops: list[tuple[str, Callable[[], Awaitable[None]]]] = []
    sender: ArtifactSender | None = None
    has_objects = settings.logs.url is not None
    if settings.logs.url is not None:
        logs = shipped = ObjectLogStore(local_logs, _object_store(settings, settings.logs.url, "logs.url"))
        loops.append(("log shipper", LogShipper(shipped, ended.is_settled).run))
    if settings.artifacts.url is not None:
        store = _object_store(settings, settings.artifacts.url, "artifacts.url")
        artifacts = sent = ObjectArtifactStore(local_artifacts, store)
        sender = ArtifactSender(sent, ended.is_settled)
        loops.append(("artifact sender", sender.run))

    async def before_settle(key: AttemptKey) -> None:
        """An attempt without a word gets a folder too: so its log is known to be empty, and not on its way."""
        if has_objects:
            await asyncio.to_thread(local_logs.directory, key)
        if sender is not None:
            await sender.before_settle(key)

    return Stores(logs=logs, artifacts=artifacts, loops=tuple(loops), before_settle=before_settle)


def store_problems(settings: Settings) -> Iterator[str]:
    """What `open_stores` would refuse, without a connection."""
    for url, field in ((settings.logs.url, "logs.url"), (settings.artifacts.url, "artifacts.url")):
        if url is not None:
            try:
                _object_store(settings, url, field)
            except ConfigError as error:
                yield f"{error.message} ({error.cure})"


def _object_store(settings: Settings, url: str, field: str) -> ObjectStore:
    section = settings.object_store
    options = {name: value.get_secret_value() for name, value in section.options.items()}
    return open_object_store(url, options, allow_http=section.allow_http, field=field)


class _Ended:
    """What the ledger says of an attempt."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def is_settled(self, key: AttemptKey) -> bool | None:
        """None where the ledger knows no such attempt; not settled, as far as is known, while it cannot be asked."""
        try:
            attempt = await self._ledger.get_attempt(key)
        except LedgerUnavailable:
            return False
        return None if attempt is None else attempt.state is AttemptState.ENDED
