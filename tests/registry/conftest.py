"""A scripted registry under several names, and clients that may or may not reach it."""

import ipaddress
from collections.abc import AsyncIterator, Callable

import pytest

from runyard.registry.client import RegistryClient
from runyard.registry.reference import Reference
from tests.registry.scripted_registry import ScriptedRegistry

# Loopback addresses that stand for these kinds.
PUBLIC, PRIVATE = "127.0.0.1", "127.0.0.2"
PLAIN = ("registry.test", "other.test", "auth.test", "inner.private", "files.private")


@pytest.fixture
async def registry() -> AsyncIterator[ScriptedRegistry]:
    scripted = ScriptedRegistry()
    async with scripted.serving():
        yield scripted


@pytest.fixture
async def connect(registry: ScriptedRegistry) -> AsyncIterator[Callable[..., RegistryClient]]:
    """Makes clients. Every name leads to the scripted registry, `*.private` to an address that is not allowed."""
    made: list[RegistryClient] = []

    def connect(private: tuple[str, ...] = (), resolve=None) -> RegistryClient:
        def at_port(names: tuple[str, ...]) -> frozenset[str]:
            return frozenset(f"{name}:{registry.port}" for name in names)

        client = RegistryClient(
            allow_address=lambda address: address == PUBLIC,
            plain_http_hosts=at_port(PLAIN),
            private_hosts=at_port(private),
            resolve=resolve or _resolve,
            sleep=_no_pause,
        )
        made.append(client)
        return client

    yield connect
    for client in made:
        await client.close()


@pytest.fixture
def client(connect: Callable[..., RegistryClient]) -> RegistryClient:
    return connect()


@pytest.fixture
def image(registry: ScriptedRegistry) -> Reference:
    return Reference(f"registry.test:{registry.port}", "team/app", tag="1")


async def _resolve(host: str, port: int) -> list[str]:
    """An address is itself, as the real resolver has it."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        return [PRIVATE if host.endswith(".private") else PUBLIC]


async def _no_pause(seconds: float) -> None:
    pass
