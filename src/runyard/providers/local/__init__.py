"""The `local` provider: jobs on the service's own host."""

from runyard.providers.local.provider import LocalProvider, create_provider

__all__ = ["LocalProvider", "create_provider"]
