"""The `kubernetes` provider: attempts in a cluster, each a Job of one pod. Its entry point imports late, so that the
service runs without the packages of its extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runyard.model.errors import ConfigError
from runyard.providers.port import ProviderConfig

if TYPE_CHECKING:
    from runyard.providers.kubernetes.provider import KubernetesProvider


def create_provider(config: ProviderConfig) -> KubernetesProvider:
    """The entry point `kubernetes`. Raises ConfigError for options that are wrong, and without the extra's packages."""
    try:
        from runyard.providers.kubernetes.provider import KubernetesProvider
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("runyard"):
            raise
        raise ConfigError(
            f"pools.{config.pool}.provider: 'kubernetes' needs the package {error.name}, which is not installed",
            field=f"pools.{config.pool}.provider",
            cure="pip install 'runyard[kubernetes]'",
        ) from None
    return KubernetesProvider(config)
