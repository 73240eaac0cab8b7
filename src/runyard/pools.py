"""From a pool's section of the config to its provider, and to its row in the ledger."""

from __future__ import annotations

import socket
from importlib.metadata import entry_points
from pathlib import Path

from runyard.config import PoolSection
from runyard.ledger.port import Ledger
from runyard.model.errors import ConfigError, IsolationUnavailable, Unreachable
from runyard.model.pool import Budget, PoolSettings
from runyard.model.requirements import Isolation
from runyard.providers.port import Provider, ProviderConfig


def create_provider(name: str, section: PoolSection, installation: str, folder: Path) -> Provider:
    """The provider that the pool names, from its entry point. Raises ConfigError for an unknown one."""
    known = {entry.name: entry for entry in entry_points(group="runyard.providers")}
    if section.provider not in known:
        raise ConfigError(
            f"pools.{name}.provider: no provider is named {section.provider!r}",
            field=f"pools.{name}.provider",
            cure=f"choose one of: {', '.join(sorted(known))}",
        )
    create = known[section.provider].load()
    config = ProviderConfig(
        pool=name,
        installation=installation,
        data_directory=folder,
        slots=section.slots,
        options=section.options,
    )
    provider: Provider = create(config)
    return provider


def pool_settings(
    name: str, section: PoolSection, provider: Provider, *, is_ledger_shared: bool, installation: str
) -> PoolSettings:
    """The pool's row. On a ledger that several hosts share, a pool that is bound to its host carries the host's name:
    each host has its own."""
    capabilities, shape = provider.capabilities, provider.shape
    is_one_of_many = is_ledger_shared and capabilities.is_host_bound
    return PoolSettings(
        name=f"{name}-{socket.gethostname().lower()}" if is_one_of_many else name,
        provider=section.provider,
        slots=shape.slots,
        budget=shape.budget,
        isolation=capabilities.isolation,
        queues=tuple(section.queues),
        labels=capabilities.labels,
        has_network_open=capabilities.has_network_open,
        has_network_allow=capabilities.has_network_allow,
        has_images=capabilities.has_images,
        has_services=capabilities.has_services,
        host=f"{socket.gethostname()}/{installation}" if capabilities.is_host_bound else None,
        description=capabilities.description,
    )


async def refuse_foreign_pool(ledger: Ledger, settings: PoolSettings) -> None:
    """A pool that is bound to a host has its attempts in one data folder: a service with another folder would take
    them for never started, and start them again. Raises ConfigError."""
    known = await ledger.get_pool(settings.name)
    if known is not None and settings.host is not None and known.settings.host not in (None, settings.host):
        raise ConfigError(
            f"pool '{settings.name}' belongs to another data folder of this host ({known.settings.host})",
            field=f"pools.{settings.name}",
            cure=f"name this one otherwise, or give the old one up: runyard pool forget {settings.name}",
        )


def unusable_pool(name: str, section: PoolSection, error: IsolationUnavailable | Unreachable) -> PoolSettings:
    """A pool that can take nothing and says why."""
    return PoolSettings(
        name=name,
        provider=section.provider,
        slots=0,
        budget=Budget(cpu_millis=0, memory_bytes=0),
        isolation=Isolation.NONE,
        queues=tuple(section.queues),
        description=f"{error.message}; cure: {error.cure}",
    )
