"""A request as read from the wire, and the shapes an answer may have."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from tests.kubernetes.strict_server.status import Refusal, bad_request

Json = dict[str, Any]


class CutConnection(Exception):
    """Raised within a stream: the connection is reset, no end is written."""


@dataclass(frozen=True)
class Request:
    """Header names are lower case; the path is decoded and has no query."""

    method: str
    path: str
    query_text: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query_text, keep_blank_values=True)

    def first(self, key: str) -> str:
        return next((value for name, value in self.query if name == key), "")

    def every(self, key: str) -> list[str]:
        return [value for name, value in self.query if name == key]

    def flag(self, key: str) -> bool:
        return self.first(key).lower() in {"true", "1"}

    def number(self, key: str) -> int | None:
        text = self.first(key)
        try:
            return int(text) if text else None
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None

    def __str__(self) -> str:
        return f"{self.method} {self.path}" + (f"?{self.query_text}" if self.query_text else "")


@dataclass(frozen=True)
class Answer:
    code: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """Chunks until the iterator ends; `close` is called when the client goes away."""

    chunks: AsyncIterator[bytes]
    content_type: str


@dataclass(frozen=True)
class Upgrade:
    """A websocket: the answer to `command` goes over it."""

    serve: Callable[[str], AsyncIterator[bytes]]
    protocols: tuple[str, ...]
    wants_stdin: bool
    give_stdin: Callable[[bytes], None]


def json_answer(body: Json, code: int = 200, *, warnings: list[str] | None = None) -> Answer:
    headers = {"Content-Type": "application/json"}
    if warnings:
        headers["Warning"] = ", ".join("299 - " + json.dumps(text) for text in warnings)
    return Answer(code, json.dumps(body, separators=(",", ":")).encode() + b"\n", headers)


def refusal_answer(refused: Refusal) -> Answer:
    answer = json_answer(refused.body, refused.code)
    return Answer(answer.code, answer.body, answer.headers | refused.headers)
