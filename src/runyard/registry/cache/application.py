"""The HTTP side of the cache: the pulling half of the OCI distribution specification, as an ASGI application.

Written to ASGI itself: what is served is one header and a file's bytes, to clients that may be slow or go away.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote

import structlog

from runyard.model.errors import (
    ImageUnsupported,
    OperatorError,
    RegistryDenied,
    RegistryError,
    RegistryNotFound,
    RegistryThrottled,
)
from runyard.registry.cache.cache import RegistryCache
from runyard.registry.cache.downloads import Download
from runyard.registry.cache.settings import Wanted, parse_path
from runyard.registry.cache.store import StoredBlob
from runyard.registry.credentials import Credentials

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Metrics: TypeAlias = Callable[[], bytes]

STALL_S_MAX = 120.0  # a client that takes nothing for so long is let go
_CHALLENGE = 'Basic realm="Runyard registry cache: user name and password of the registry behind it"'
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}

log = structlog.get_logger()


class TornOff(Exception):
    """A body that could not be sent to its end; the connection must break, or it would look whole."""


class CacheApplication:
    """An ASGI application. `render_metrics` makes the answer of /metrics; None has none."""

    def __init__(self, cache: RegistryCache, render_metrics: Metrics | None = None) -> None:
        self._cache = cache
        self._render_metrics = render_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, receive, send)
        except TornOff:
            return  # with the response unfinished, at which the server breaks the connection
        except RegistryError as error:
            await _send_error(scope, send, error)
        except OperatorError as error:
            log.error("registry_cache_misconfigured", error=error.message)
            await _send(send, 503, _error_body("UNAVAILABLE", "the cache's credentials cannot be read"))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if method not in ("GET", "HEAD"):
            body = _error_body("UNSUPPORTED", "this is a cache: push to the registry itself")
            return await _send(send, 405, body, {"Allow": "GET, HEAD"})
        if path == "/healthz":
            return await _send(send, 200, b"ok\n", {"Content-Type": "text/plain"})
        if path == "/metrics" and self._render_metrics is not None:
            return await _send(
                send, 200, self._render_metrics(), {"Content-Type": "text/plain; version=0.0.4"}
            )
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        login = parse_login(headers.get("authorization"))
        if path in ("/v2/", "/v2"):
            if self._cache.settings.asks_login and login is None:
                return await _send(
                    send, 401, _error_body("UNAUTHORIZED", "log in"), {"WWW-Authenticate": _CHALLENGE}
                )
            return await _send(send, 200, b"{}", {"Content-Type": "application/json"})
        query = parse_qs(scope["query_string"].decode("latin-1"))
        namespace = unquote(query["ns"][0]) if "ns" in query else None
        wanted = parse_path(self._cache.settings, path.removeprefix("/v2/"), namespace)
        if wanted is None or not path.startswith("/v2/"):
            return await _send(
                send, 404, _error_body("NAME_UNKNOWN", "no upstream of this cache has such a path")
            )
        if wanted.kind == "manifests":
            return await self._send_manifest(wanted, login, method, send)
        return await self._send_blob(wanted, login, method, headers, receive, send)

    async def _send_manifest(
        self, wanted: Wanted, login: Credentials | None, method: str, send: Send
    ) -> None:
        document = await self._cache.manifest(wanted, login)
        self._cache.counters.served_bytes += len(document.body)
        await _send(
            send,
            200,
            document.body,
            {"Content-Type": document.media_type, "Docker-Content-Digest": document.digest},
            is_head=method == "HEAD",
        )

    async def _send_blob(
        self,
        wanted: Wanted,
        login: Credentials | None,
        method: str,
        headers: Mapping[str, str],
        receive: Receive,
        send: Send,
    ) -> None:
        digest = wanted.reference.target
        own = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
            "Etag": f'"{digest}"',
        }
        if method == "HEAD":
            size = await self._cache.blob_size(wanted, login)
            stated = {"Content-Length": str(size)} if size is not None else {}
            await _start(send, 200, {**own, **stated})
            await send({"type": "http.response.body"})
            return
        async with self._cache.blob(wanted, login) as blob:
            extent = parse_range(headers.get("range", ""), blob.size)
            if extent is None:
                unmet = {"Content-Range": f"bytes */{blob.size}"}
                await _send(send, 416, _error_body("RANGE_INVALID", "no such range"), unmet)
                return
            start, end = extent
            status = 200
            if end is not None:
                own["Content-Length"] = str(end - start)
                if (start, end) != (0, blob.size):
                    status = 206
                    own["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
            await _start(send, status, own)
            await self._send_pieces(blob, start, end, receive, send)

    async def _send_pieces(
        self, blob: StoredBlob | Download, start: int, end: int | None, receive: Receive, send: Send
    ) -> None:
        """As fast as the client takes them, one piece in memory."""
        gone = asyncio.ensure_future(_client_gone(receive))
        try:
            async for piece in blob.pieces(start, end):
                if gone.done():
                    return
                async with asyncio.timeout(STALL_S_MAX):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                self._cache.counters.served_bytes += len(piece)
            await send({"type": "http.response.body"})
        except (RegistryError, OSError, TimeoutError) as error:
            log.warning("registry_cache_torn_off", error=str(error) or "the client takes nothing")
            raise TornOff from None
        finally:
            gone.cancel()


def parse_login(header: str | None) -> Credentials | None:
    """Basic only: a token would be another service's. Anything else is refused, never passed over: whoever sends it
    expects to be checked. Raises RegistryDenied."""
    if not header:
        return None
    scheme, _, packed = header.partition(" ")
    if scheme.lower() == "basic":
        with suppress(binascii.Error, UnicodeDecodeError):
            user, colon, password = base64.b64decode(packed.strip(), validate=True).decode().partition(":")
            if colon and password:
                return Credentials(user, password)
    raise RegistryDenied("the Authorization header is not Basic with a user name and password")


def parse_range(header: str, size: int | None) -> tuple[int, int | None] | None:
    """The bytes to send, from and up to; all of them where no single range is asked for. None: not satisfiable."""
    parsed = _RANGE.fullmatch(header.strip())
    if parsed is None or size is None or parsed[1] == parsed[2] == "":
        return 0, size
    if parsed[1] == "":
        count = int(parsed[2])
        return (max(size - count, 0), size) if count else None
    start = int(parsed[1])
    end = min(int(parsed[2]) + 1, size) if parsed[2] else size
    return (start, end) if start < end else None


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_error(scope: Scope, send: Send, error: RegistryError) -> None:
    headers: dict[str, str] = {}
    match error:
        case RegistryNotFound():
            is_blob = "/blobs/" in scope["path"]
            status, code = 404, "BLOB_UNKNOWN" if is_blob else "MANIFEST_UNKNOWN"
        case RegistryDenied():
            status, code = 401, "UNAUTHORIZED"
            headers["WWW-Authenticate"] = _CHALLENGE
        case ImageUnsupported():
            status, code = 403, "DENIED"
        case RegistryThrottled():
            status, code = 429, "TOOMANYREQUESTS"
            headers["Retry-After"] = str(int(error.after_s))
        case _:
            status, code = 502, "UNAVAILABLE"
    await _send(send, status, _error_body(code, error.message), headers, is_head=scope["method"] == "HEAD")


def _error_body(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


async def _send(
    send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, is_head: bool = False
) -> None:
    own = {"Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(body))}
    await _start(send, status, own)
    await send({"type": "http.response.body", "body": b"" if is_head else body})


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    rows = [
        (name.lower().encode(), value.encode("latin-1", "replace"))
        for name, value in {**_VERSION, **headers}.items()
    ]
    await send({"type": "http.response.start", "status": status, "headers": rows})
