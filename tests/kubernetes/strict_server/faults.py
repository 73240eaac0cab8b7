"""What goes wrong between a client and the server: planned by a test, each for so many requests."""

import asyncio
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.kubernetes.strict_server.status import Refusal, refusal, too_many_requests

Json = dict[str, Any]


class Kind(Enum):
    RESET = "the connection is reset before anything happens"
    DROP_REPLY = "what was asked happens, and the connection is reset instead of an answer"
    NEVER_ANSWER = "what was asked happens, and no answer comes until the client goes away"
    TRUNCATE = "the answer's body stops in its middle"
    ANSWER = "an error instead of what was asked"
    HOLD = "nothing happens before the test opens the gate"


@dataclass
class Fault:
    """For requests whose `METHOD path?query` matches `pattern` (searched), `times` of them; None is for ever."""

    pattern: str
    kind: Kind
    times: int | None = 1
    answer: Refusal | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    hits: int = 0

    def applies(self, asked: str) -> bool:
        return (self.times is None or self.hits < self.times) and re.search(self.pattern, asked) is not None


class Faults:
    """`watch_events_max`: every watch ends after so many events; `watch_cut` says whether by a reset or tidily.

    `log_bytes_max`: every log stream is reset after so many bytes.
    """

    def __init__(self) -> None:
        self.planned: list[Fault] = []
        self.watch_events_max: int | None = None
        self.watch_cut = True
        self.log_bytes_max: int | None = None

    def plan(
        self, pattern: str, kind: Kind, *, times: int | None = 1, answer: Refusal | None = None
    ) -> Fault:
        fault = Fault(pattern, kind, times, answer)
        self.planned.append(fault)
        return fault

    def busy(self, pattern: str, *, times: int | None = 1, retry_after_s: int = 1) -> Fault:
        return self.plan(pattern, Kind.ANSWER, times=times, answer=too_many_requests(retry_after_s))

    def broken(self, pattern: str, *, times: int | None = 1, code: int = 500) -> Fault:
        """500 as of etcd's trouble, 503 as of a server that stops, any other as it is."""
        words, reason = {
            500: ("Internal error occurred: etcdserver: request timed out", "InternalError"),
            503: ("apiserver is shutting down", "ServiceUnavailable"),
        }.get(code, (f"code {code}", "Unknown"))
        return self.plan(pattern, Kind.ANSWER, times=times, answer=refusal(code, words, reason=reason))

    def take(self, asked: str) -> Fault | None:
        for fault in self.planned:
            if fault.applies(asked):
                fault.hits += 1
                return fault
        return None
