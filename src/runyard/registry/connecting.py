"""The way to a registry: HTTP over connections whose address was looked at first, and pinned.

A host's name is resolved once for each connection; every address of it must be allowed, and the connection goes to one
of those that were looked at, so that a name cannot change its mind between the look and the connect. The name stays
what TLS checks.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TypeAlias

import anyio
import httpcore2
import httpx2

from runyard.model.errors import RegistryDenied

AllowAddress: TypeAlias = Callable[[str, int, str], bool]  # the host's name, port, one of its addresses
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
CONNECTIONS_MAX = 128
KEEP_ALIVE_S = 30.0
# httpx2's own classes, from the particular to the general.
_AS_HTTPX = (
    (httpcore2.ConnectTimeout, httpx2.ConnectTimeout),
    (httpcore2.ReadTimeout, httpx2.ReadTimeout),
    (httpcore2.WriteTimeout, httpx2.WriteTimeout),
    (httpcore2.PoolTimeout, httpx2.PoolTimeout),
    (httpcore2.TimeoutException, httpx2.TimeoutException),
    (httpcore2.ConnectError, httpx2.ConnectError),
    (httpcore2.ReadError, httpx2.ReadError),
    (httpcore2.WriteError, httpx2.WriteError),
    (httpcore2.NetworkError, httpx2.NetworkError),
    (httpcore2.RemoteProtocolError, httpx2.RemoteProtocolError),
    (httpcore2.ProtocolError, httpx2.ProtocolError),
)


async def resolve_host(host: str, port: int) -> list[str]:
    """A host's addresses in the resolver's order. Raises OSError."""
    rows = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))[:64]


class PinnedTransport(httpx2.AsyncBaseTransport):
    """httpx2's requests over httpcore2's pool, whose connections are made by `PinnedBackend`. No proxy is asked."""

    def __init__(
        self, allows: AllowAddress, *, tls: ssl.SSLContext | None = None, resolve: Resolve = resolve_host
    ) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=CONNECTIONS_MAX,
            keepalive_expiry=KEEP_ALIVE_S,
            network_backend=PinnedBackend(allows, resolve),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, AsyncIterable)
        raw = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _httpx_errors():
            response = await self._pool.handle_async_request(raw)
        assert isinstance(response.stream, AsyncIterable)
        return httpx2.Response(response.status, headers=response.headers, stream=_Body(response))

    async def aclose(self) -> None:
        await self._pool.aclose()


class PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Resolves, asks about every address, and connects to one that was asked about."""

    def __init__(self, allows: AllowAddress, resolve: Resolve) -> None:
        self._allows = allows
        self._resolve = resolve
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            with anyio.fail_after(timeout):
                addresses = await self._resolve(host, port)
        except TimeoutError:
            raise httpcore2.ConnectTimeout(f"the name {host!r} was not resolved in {timeout} s") from None
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"the name {host!r} cannot be resolved: {error}") from None
        if not addresses:
            raise httpcore2.ConnectError(f"the name {host!r} has no address")
        for address in addresses:
            if not self._allows(host, port, address):
                raise RegistryDenied(
                    f"the registry host {host}:{port} is at {address}, which images may not be fetched from",
                    field="image",
                    cure="name a public registry, or let an operator allow this one in the configuration",
                )
        return await self._connect(addresses, port, timeout, local_address, socket_options)

    async def _connect(
        self,
        addresses: list[str],
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None,
    ) -> httpcore2.AsyncNetworkStream:
        """To the first address that answers."""
        for address in addresses[:-1]:
            with contextlib.suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                share = None if timeout is None else timeout / len(addresses)
                return await self._inner.connect_tcp(address, port, share, local_address, socket_options)
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._response.stream, AsyncIterable)
        with _httpx_errors():
            async for piece in self._response.stream:
                yield piece

    async def aclose(self) -> None:
        with _httpx_errors():
            await self._response.aclose()


@contextlib.contextmanager
def _httpx_errors() -> Iterator[None]:
    try:
        yield
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raised = next(ours for theirs, ours in _AS_HTTPX if isinstance(error, theirs))
        raise raised(str(error)) from error
