"""One authorised request to a registry: the address looked at, the challenge answered, redirects followed with care.

A redirect's host and a token server's address are the registry's word, so they are treated as an attacker's: the same
address policy, no way down from TLS, and no credentials for a host other than the one they are for.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import urlencode

import httpx2

from runyard.model.errors import (
    RegistryDenied,
    RegistryError,
    RegistryNotFound,
    RegistryThrottled,
    RegistryUnreachable,
)
from runyard.registry.authorization import Authorizer, basic_header, denied
from runyard.registry.challenge import Bearer, Token, parse_token
from runyard.registry.connecting import PinnedTransport, Resolve, resolve_host
from runyard.registry.credentials import Credentials
from runyard.registry.reference import Reference, is_loopback_host

CONNECT_S_MAX = 10.0
SILENCE_S_MAX = 60.0
REDIRECTS_MAX = 5
TOKEN_BYTES_MAX = 1 << 20
THROTTLED_S_DEFAULT = 60.0
_THROTTLED_S_MAX = 6 * 3600.0
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


class Exchange:
    """The HTTP side of the client.

    `allow_address` says whether an address may be connected to. Hosts in `private_hosts` may be at any, but only for
    images of such a host: a public registry's redirect does not reach them. `plain_http_hosts` speak without TLS.
    """

    def __init__(
        self,
        *,
        allow_address: Callable[[str], bool],
        plain_http_hosts: frozenset[str] = frozenset(),
        private_hosts: frozenset[str] = frozenset(),
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve_host,
    ) -> None:
        self._plain_http_hosts = plain_http_hosts
        self._private_hosts = private_hosts
        tls = tls or ssl.create_default_context()
        # Apart, so that no connection that was made for a configured host serves another image's redirect.
        self._for_anybody = _client(
            PinnedTransport(lambda _host, _port, address: allow_address(address), tls=tls, resolve=resolve)
        )
        self._for_private = _client(
            PinnedTransport(
                lambda host, port, address: self._is_private(host, port) or allow_address(address),
                tls=tls,
                resolve=resolve,
            )
        )
        self._authorizer = Authorizer(self._ask_token)

    async def close(self) -> None:
        await self._for_anybody.aclose()
        await self._for_private.aclose()

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        reference: Reference,
        path: str,
        *,
        credentials: Credentials | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """A successful answer, its body not read yet. `path` follows /v2/REPOSITORY. Raises RegistryError."""
        url = httpx2.URL(f"{self._scheme(reference.host)}://{reference.host}/v2/{reference.repository}{path}")
        own = dict(headers or {})
        sent = self._authorizer.known(reference, credentials)
        response = await self._send(method, url, _with(own, sent), reference)
        try:
            if response.status_code == 401:
                asked = response.headers.get_list("www-authenticate")
                await response.aclose()
                sent = await self._authorizer.answer(asked, reference, credentials, refused=sent)
                response = await self._send(method, url, _with(own, sent), reference)
            response = await self._follow(method, response, own, sent, reference)
            if not response.is_success:
                raise refusal(response, reference, credentials)
            yield response
        except httpx2.HTTPError as error:
            raise unreachable(reference, error) from None
        finally:
            with contextlib.suppress(httpx2.HTTPError):
                await response.aclose()

    async def _follow(
        self,
        method: str,
        response: httpx2.Response,
        own: Mapping[str, str],
        sent: str | None,
        reference: Reference,
    ) -> httpx2.Response:
        url = origin = response.request.url
        for _ in range(REDIRECTS_MAX):
            if response.status_code not in _REDIRECTS:
                return response
            url = self._next_url(url, response.headers.get("location", ""), reference)
            await response.aclose()
            is_home = _origin(url) == _origin(origin)
            response = await self._send(method, url, _with(own, sent if is_home else None), reference)
        await response.aclose()
        raise RegistryUnreachable(f"{reference.host} redirects more than {REDIRECTS_MAX} times")

    def _next_url(self, url: httpx2.URL, location: str, reference: Reference) -> httpx2.URL:
        try:
            following = url.join(location)
        except (httpx2.InvalidURL, ValueError):
            following = httpx2.URL("")
        self._check_url(following, reference, "redirects")
        return following

    def _check_url(self, url: httpx2.URL, reference: Reference, does: str) -> None:
        """What a registry's word may be as an address of ours to ask. Raises RegistryDenied."""
        is_plain = url.scheme == "http" and self._scheme(_host_of(url)) == "http"
        if not url.host or url.userinfo or not (url.scheme == "https" or is_plain):
            raise RegistryDenied(
                f"{reference.host} {does} to {url.scheme[:10]}://{_host_of(url)[:80]}, which is not https",
                field="image",
                cure="let an operator allow plain HTTP for this host, if it must be",
            )

    async def _send(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], reference: Reference
    ) -> httpx2.Response:
        client = self._client_for(reference)
        try:
            return await client.send(client.build_request(method, url, headers=dict(headers)), stream=True)
        except httpx2.HTTPError as error:
            raise unreachable(reference, error) from None

    async def _ask_token(
        self, reference: Reference, bearer: Bearer, credentials: Credentials | None
    ) -> Token:
        """As token.md has it, with GET; for an identity token as oauth.md has it, with POST."""
        try:
            url = httpx2.URL(bearer.realm)
        except (httpx2.InvalidURL, ValueError):
            url = httpx2.URL("")
        self._check_url(url, reference, "names a token server that leads")
        scope = bearer.scope or f"repository:{reference.repository}:pull"
        asked = {"service": bearer.service, "scope": scope}
        client = self._client_for(reference)
        if credentials is not None and credentials.identity_token:
            form = {**asked, "grant_type": "refresh_token", "client_id": "runyard"}
            request = client.build_request(
                "POST",
                url,
                content=urlencode({**form, "refresh_token": credentials.identity_token}),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
        else:
            own = {"Authorization": basic_header(credentials)} if credentials is not None else {}
            request = client.build_request("GET", url.copy_merge_params(asked), headers=own)
        try:
            async with contextlib.aclosing(await client.send(request, stream=True)) as response:
                if response.status_code in (400, 401, 403):
                    raise denied(reference, credentials)
                if not response.is_success:
                    raise refusal(response, reference, credentials)
                body = await read_bounded(response, TOKEN_BYTES_MAX, reference, "the token")
        except httpx2.HTTPError as error:
            raise unreachable(reference, error) from None
        return parse_token(body, f"the token server of {reference.host}: its answer")

    def _client_for(self, reference: Reference) -> httpx2.AsyncClient:
        return self._for_private if reference.host in self._private_hosts else self._for_anybody

    def _scheme(self, host: str) -> str:
        return "http" if host in self._plain_http_hosts or is_loopback_host(host) else "https"

    def _is_private(self, host: str, port: int) -> bool:
        name = f"[{host}]" if ":" in host else host
        names = {f"{name}:{port}"}
        if port == (80 if self._scheme(name) == "http" else 443):
            names.add(name)
        return not names.isdisjoint(self._private_hosts)


async def read_bounded(response: httpx2.Response, bytes_max: int, reference: Reference, what: str) -> bytes:
    """A whole body. Raises RegistryDenied beyond the bound."""
    parts: list[bytes] = []
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > bytes_max:
            raise RegistryDenied(f"{reference.host}: {what} is larger than {bytes_max} bytes", field="image")
        parts.append(piece)
    return b"".join(parts)


def refusal(
    response: httpx2.Response, reference: Reference, credentials: Credentials | None
) -> RegistryError:
    """The error for an answer that is none. Its body is not shown: it may hold what we sent."""
    status = response.status_code
    if status in (401, 403):
        return denied(reference, credentials)
    if status in (404, 410):
        return RegistryNotFound(f"{reference} is not there", field="image", cure="check its name and tag")
    if status == 429:
        after_s = _retry_after_s(response)
        return RegistryThrottled(
            f"{reference.host} takes no more requests for {after_s:.0f} s",
            after_s=after_s,
            cure="configure credentials for it, or the registry cache",
        )
    what = "has a fault of its own" if status >= 500 else "answered what we cannot use"
    return RegistryUnreachable(f"{reference.host} {what} (HTTP {status}) for {reference.repository}")


def unreachable(reference: Reference, error: httpx2.HTTPError) -> RegistryUnreachable:
    detail = str(error)[:200] or type(error).__name__
    return RegistryUnreachable(f"{reference.host} cannot be reached: {detail}")


def _client(transport: PinnedTransport) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        # Bytes as their digest has them, never repacked on the way.
        headers={"User-Agent": "runyard", "Accept-Encoding": "identity", "Accept": "*/*"},
        timeout=httpx2.Timeout(SILENCE_S_MAX, connect=CONNECT_S_MAX),
    )


def _with(own: Mapping[str, str], authorization: str | None) -> dict[str, str]:
    return {**own, "Authorization": authorization} if authorization else dict(own)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _host_of(url: httpx2.URL) -> str:
    return url.netloc.decode("ascii", "replace")


def _retry_after_s(response: httpx2.Response) -> float:
    """Seconds only: a date would need the two clocks to agree."""
    try:
        stated = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return THROTTLED_S_DEFAULT
    return min(max(stated, 1.0), _THROTTLED_S_MAX) if stated == stated else THROTTLED_S_DEFAULT
