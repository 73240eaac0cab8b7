"""One request and how its answer is read, as a value; and the effects that longer conversations are made of.

What the client says lives in pure functions that build calls (`*_calls.py`) and in plans: generators that yield
effects and receive their results. `transport.py` carries them out, once for threads and once for an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

T = TypeVar("T")
Parse: TypeAlias = Callable[[bytes], T]
PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """`what` completes "cannot …" in messages. `is_repeatable`: sent twice, it changes the world once."""

    what: str
    method: str
    path: str
    parse: Parse[T]
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = True
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    body: bytes
    retry_after_s: float | None = None


class Lost(Exception):
    """No whole answer came. `was_sent`: the service may have acted on the request."""

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.message = message
        self.was_sent = was_sent


@dataclass(frozen=True, slots=True)
class Send:
    """Send the call once; results in a Reply, raises Lost."""

    call: Call[Any]


@dataclass(frozen=True, slots=True)
class Fetch:
    """As Send, but a 2xx body goes into `target`, which appears only when it is whole; the Reply's body is empty."""

    call: Call[Any]
    target: Path


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class ReadClock:
    """Results in seconds of a clock that only goes forward."""


Effect: TypeAlias = Send | Fetch | Pause | ReadClock
Plan: TypeAlias = Generator[Effect, Any, T]


def route(*parts: str) -> str:
    """The path of these parts; a part may hold anything, also `/`, and stays one part."""
    return PREFIX + "".join("/" + quote(part, safe="") for part in parts)


def query_of(**values: object) -> tuple[tuple[str, str], ...]:
    """The query parameters that are given, in order; a list repeats its key."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if value is None:
            continue
        many = value if isinstance(value, list | tuple) else [value]
        pairs += [(key, str(one)) for one in many]
    return tuple(pairs)
