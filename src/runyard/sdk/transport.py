"""Carries out calls, plans and followers over httpx2: once in a thread (`Transport`), once on a loop
(`AsyncTransport`). Nothing is decided here; the two differ only in `await`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeAlias

from runyard.sdk.call import Call, Effect, Fetch, Lost, Pause, Plan, ReadClock, Reply, Send, T
from runyard.sdk.discovery import Service, is_loopback
from runyard.sdk.errors import RunyardApiError, error_of_answer
from runyard.sdk.following import SILENCE_S_MAX, Follower, Interruption, Item
from runyard.sdk.partial_file import PartialFile
from runyard.sdk.retrying import unreachable

if TYPE_CHECKING:
    import httpx2

Watch: TypeAlias = Callable[[Interruption], object]
CONNECT_S_MAX = 10.0
ERROR_BYTES_MAX = 1 << 20


class Transport:
    """`inner` replaces the network (httpx2's own transports); `sleep` and `clock` the time."""

    def __init__(
        self,
        service: Service,
        *,
        inner: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import httpx2

        self.url = service.url
        self._client = httpx2.Client(transport=inner, **_client_options(service))
        self._sleep, self._clock = sleep, clock

    def close(self) -> None:
        self._client.close()

    def run(self, plan: Plan[T]) -> T:
        result: Any = None
        lost: Lost | None = None
        while True:
            try:
                effect = plan.throw(lost) if lost else plan.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result, lost = None, None
            try:
                result = self._perform(effect)
            except Lost as error:
                lost = error

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send(call):
                return self._send(call)
            case Fetch():
                return self._fetch(effect)
            case Pause(seconds):
                return self._sleep(seconds)
            case ReadClock():
                return self._clock()

    def _send(self, call: Call[Any]) -> Reply:
        import httpx2

        try:
            response = self._client.send(self._request(call))
        except httpx2.TransportError as error:
            raise lost_by(error) from error
        return _reply(response, response.content)

    def _fetch(self, effect: Fetch) -> Reply:
        import httpx2

        try:
            response = self._client.send(self._request(effect.call), stream=True)
            with closing(response):
                if not response.is_success:
                    return _reply(response, response.read())
                with PartialFile(effect.target) as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                    file.finish()
                return _reply(response, b"")
        except httpx2.TransportError as error:
            raise lost_by(error) from error

    def stream(self, call: Call[bytes]) -> Generator[bytes]:
        """The pieces of a 2xx body, sent for once."""
        import httpx2

        try:
            response = self._client.send(self._request(call), stream=True)
            with closing(response):
                if not response.is_success:
                    body = response.read()
                    raise error_of_answer(call.what, status=response.status_code, body=body)
                yield from response.iter_bytes()
        except httpx2.TransportError as error:
            raise unreachable(call.what, lost_by(error)) from error

    def follow(self, follower: Follower[Item], watch: Watch | None = None) -> Generator[Item]:
        """The follower's items, over as many connections as it takes; `watch` is told of each that broke."""
        import httpx2

        while not follower.is_ended():
            cause: RunyardApiError | None = None
            try:
                request = self._request(follower.next_call(), read_s=SILENCE_S_MAX)
                with closing(self._client.send(request, stream=True)) as response:
                    if response.is_success:
                        for chunk in response.iter_bytes():
                            yield from follower.feed(chunk)
                            if follower.is_ended():
                                return
                    else:
                        cause = _stream_refusal(follower.what, response, response.read())
                message = str(cause or "the service ended the stream")
            except httpx2.TransportError as error:
                message = lost_by(error).message
            interruption = follower.interrupted(message, cause=cause)
            if watch:
                watch(interruption)
            self._sleep(interruption.delay_s)

    def _request(self, call: Call[Any], read_s: float | None = None) -> httpx2.Request:
        return self._client.build_request(call.method, call.path, **_request_options(call, read_s))


class AsyncTransport:
    """As Transport, on asyncio or trio."""

    def __init__(
        self,
        service: Service,
        *,
        inner: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import anyio
        import httpx2

        self.url = service.url
        self._client = httpx2.AsyncClient(transport=inner, **_client_options(service))
        self._sleep, self._clock = sleep or anyio.sleep, clock

    async def close(self) -> None:
        await self._client.aclose()

    async def run(self, plan: Plan[T]) -> T:
        result: Any = None
        lost: Lost | None = None
        while True:
            try:
                effect = plan.throw(lost) if lost else plan.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result, lost = None, None
            try:
                result = await self._perform(effect)
            except Lost as error:
                lost = error

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send(call):
                return await self._send(call)
            case Fetch():
                return await self._fetch(effect)
            case Pause(seconds):
                return await self._sleep(seconds)
            case ReadClock():
                return self._clock()

    async def _send(self, call: Call[Any]) -> Reply:
        import httpx2

        try:
            response = await self._client.send(self._request(call))
        except httpx2.TransportError as error:
            raise lost_by(error) from error
        return _reply(response, response.content)

    async def _fetch(self, effect: Fetch) -> Reply:
        import anyio.to_thread
        import httpx2

        in_thread = anyio.to_thread.run_sync
        try:
            response = await self._client.send(self._request(effect.call), stream=True)
            async with aclosing(response):
                if not response.is_success:
                    return _reply(response, await response.aread())
                with await in_thread(PartialFile, effect.target) as file:
                    async for chunk in response.aiter_bytes():
                        await in_thread(file.write, chunk)
                    await in_thread(file.finish)
                return _reply(response, b"")
        except httpx2.TransportError as error:
            raise lost_by(error) from error

    async def stream(self, call: Call[bytes]) -> AsyncGenerator[bytes]:
        """The pieces of a 2xx body, sent for once."""
        import httpx2

        try:
            response = await self._client.send(self._request(call), stream=True)
            async with aclosing(response):
                if not response.is_success:
                    body = await response.aread()
                    raise error_of_answer(call.what, status=response.status_code, body=body)
                async for chunk in response.aiter_bytes():
                    yield chunk
        except httpx2.TransportError as error:
            raise unreachable(call.what, lost_by(error)) from error

    async def follow(self, follower: Follower[Item], watch: Watch | None = None) -> AsyncGenerator[Item]:
        import httpx2

        while not follower.is_ended():
            cause: RunyardApiError | None = None
            try:
                request = self._request(follower.next_call(), read_s=SILENCE_S_MAX)
                async with aclosing(await self._client.send(request, stream=True)) as response:
                    if response.is_success:
                        async for chunk in response.aiter_bytes():
                            for item in follower.feed(chunk):
                                yield item
                            if follower.is_ended():
                                return
                    else:
                        cause = _stream_refusal(follower.what, response, await response.aread())
                message = str(cause or "the service ended the stream")
            except httpx2.TransportError as error:
                message = lost_by(error).message
            interruption = follower.interrupted(message, cause=cause)
            if watch:
                watch(interruption)
            await self._sleep(interruption.delay_s)

    def _request(self, call: Call[Any], read_s: float | None = None) -> httpx2.Request:
        return self._client.build_request(call.method, call.path, **_request_options(call, read_s))


def _client_options(service: Service) -> dict[str, Any]:
    """A service on this host is never asked through a proxy, and without TLS no certificates are loaded."""
    return {
        "base_url": service.url,
        "headers": {"Authorization": f"Bearer {service.token}", "Accept": "application/json"},
        "trust_env": not is_loopback(service.url),
        "verify": service.url.startswith("https:"),
    }


def _request_options(call: Call[Any], read_s: float | None) -> dict[str, Any]:
    import httpx2

    headers = dict(call.headers)
    if call.body is not None:
        headers["Content-Type"] = "application/json"
    return {
        "params": call.query,
        "content": call.body,
        "headers": headers,
        "timeout": httpx2.Timeout(read_s or call.timeout_s, connect=CONNECT_S_MAX),
    }


def _reply(response: httpx2.Response, body: bytes) -> Reply:
    return Reply(status=response.status_code, body=body, retry_after_s=_retry_after_s(response))


def _retry_after_s(response: httpx2.Response) -> float | None:
    """Seconds only: a date, which the standard allows too, would need the two clocks to agree."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return None


def _stream_refusal(what: str, response: httpx2.Response, body: bytes) -> RunyardApiError:
    """The error to go on trying after, if it can pass; raises the one that cannot."""
    error = error_of_answer(
        what,
        status=response.status_code,
        body=body[:ERROR_BYTES_MAX],
        retry_after_s=_retry_after_s(response),
    )
    if error.status in (429, 502, 503, 504):
        return error
    raise error


def lost_by(error: httpx2.TransportError) -> Lost:
    """A connection that never stood carried nothing, so even what must not be repeated may be sent again."""
    import httpx2

    was_sent = not isinstance(
        error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.UnsupportedProtocol
    )
    detail = str(error) or type(error).__name__
    try:
        url = str(error.request.url.copy_with(query=None))
    except RuntimeError:
        return Lost(detail, was_sent=was_sent)
    return Lost(f"{url}: {detail}", was_sent=was_sent)
