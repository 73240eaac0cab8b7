"""A network that a test scripts: each request gets the next of the answers, or the next failure."""

from collections.abc import Iterable, Iterator

import httpx2

from runyard.sdk.discovery import Service
from runyard.sdk.transport import AsyncTransport, Transport

SERVICE = Service(url="http://127.0.0.1:1", token="secret-token")


class Broken(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that breaks off after these bytes."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        raise httpx2.ReadError("connection reset")

    async def __aiter__(self):
        for piece in self:
            yield piece


class Script:
    """`answers` are httpx2 responses, or exceptions to raise. `requests` and `pauses` say what was done."""

    def __init__(self, answers: Iterable[object]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []
        self.pauses: list[float] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def transport(self) -> Transport:
        mock = httpx2.MockTransport(self.answer)
        return Transport(SERVICE, inner=mock, sleep=self.pauses.append, clock=lambda: sum(self.pauses))

    def async_transport(self) -> AsyncTransport:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        mock = httpx2.MockTransport(self.answer)
        return AsyncTransport(SERVICE, inner=mock, sleep=pause, clock=lambda: sum(self.pauses))


def job(id="a", state="queued", **more):
    now = "2026-11-24T11:00:00Z"
    return {"id": id, "uid": "u", "tenant": "default", "queue": "default", "state": state, "submitted_at": now,
            "queued_at": now, **more}  # fmt: skip
