"""The `docker` provider: jobs in containers of a Docker (or Podman) daemon, hardened, each for one attempt."""

from runyard.providers.docker.provider import DockerProvider, create_provider

__all__ = ["DockerProvider", "create_provider"]
