"""Following a stream of server-sent events over any number of connections: nothing lost, nothing twice.

Pure: a follower is fed what arrives and told what breaks; it gives items, and says where to go on. The service's
cursor (`Last-Event-ID`) is what it goes on from; for logs the offsets are checked as well.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from runyard.sdk.call import Call
from runyard.sdk.errors import RunyardApiError, ServerFault, Unreachable
from runyard.sdk.retrying import RetryPolicy
from runyard.sdk.server_sent import EventParser, ServerSentEvent

if TYPE_CHECKING:
    from datetime import datetime

    from runyard.wire.answers import JobStateWord, ReasonAnswer

Item = TypeVar("Item")
FOLLOWING = RetryPolicy(tries_max=60, wait_s_max=300.0, delay_s_first=0.1, delay_s_max=10.0)
SILENCE_S_MAX = 75.0
"""A connection that says nothing for so long, not even a comment, is taken for dead and opened anew."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of one stream of one step of one attempt, in order; `offset` is the first one's place in the stream."""

    attempt: int
    step: str
    stream: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LogGap:
    """Bytes that do not come: `is_cut` by the log's bound, else lost. The stream goes on at `to`."""

    attempt: int
    step: str
    stream: str
    offset: int
    to: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The last item: no more will come. `exit_code` and `signal` are None where the command did not end so."""

    state: str
    exit_code: int | None = None
    signal: int | None = None


LogItem: TypeAlias = LogChunk | LogGap | LogEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChange:
    """One change of a job's state. `cursor` is what to hand to `events(after=…)` to go on behind it; `attempt` is 0
    before the first; `reason` says why where there is something to say."""

    cursor: str
    at: datetime
    tenant: str
    queue: str
    job: str
    uid: str
    state: JobStateWord
    attempt: int
    reason: ReasonAnswer | None

    @property
    def is_final(self) -> bool:
        """The job will not change any more."""
        from runyard.wire.answers import FINAL_STATES

        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Interruption:
    """Told to whoever watches: the connection broke, it is tried again in `delay_s`."""

    message: str
    delay_s: float


class Follower(Generic[Item]):
    """One stream over many connections. `read_event` makes items of an event and says whether it was the last."""

    def __init__(
        self,
        call: Call[None],
        read_event: Callable[[ServerSentEvent], tuple[list[Item], bool]],
        policy: RetryPolicy = FOLLOWING,
    ) -> None:
        self._first_call = call
        self._read_event = read_event
        self._policy = policy
        self._parser = EventParser()
        self._cursor = ""
        self._failures, self._waited_s = 0, 0.0
        self._is_ended = False

    @property
    def what(self) -> str:
        return self._first_call.what

    def is_ended(self) -> bool:
        return self._is_ended

    def next_call(self) -> Call[None]:
        """The request for the next connection, from behind the last event that arrived whole."""
        self._parser = EventParser()
        call = self._first_call
        if not self._cursor:
            return call
        return replace(call, headers={**call.headers, "Last-Event-ID": self._cursor})

    def feed(self, chunk: bytes) -> Iterator[Item]:
        for event in self._parser.feed(chunk):
            self._failures, self._waited_s = 0, 0.0
            items, self._is_ended = self._read_event(event)
            self._cursor = event.id or self._cursor
            yield from items
            if self._is_ended:
                return

    def interrupted(self, message: str, *, cause: RunyardApiError | None = None) -> Interruption:
        """A connection failed or ended before the last event. Raises when the patience is over."""
        self._failures += 1
        delay_s = self._policy.delay_s(
            tries=self._failures,
            waited_s=self._waited_s,
            name=self._first_call.path,
            retry_after_s=getattr(cause, "retry_after_s", None),
        )
        if delay_s is None:
            raise cause or Unreachable(
                f"cannot {self.what}: {message}, {self._failures} times in a row",
                code="unreachable",
                cure="check that the service runs (`runyard serve`); then follow again",
            )
        self._waited_s += delay_s
        return Interruption(message, delay_s)


def log_follower(call: Call[None], policy: RetryPolicy = FOLLOWING) -> Follower[LogItem]:
    return Follower(call, _LogReader().read, policy)


def event_follower(call: Call[None], policy: RetryPolicy = FOLLOWING) -> Follower[JobChange]:
    return Follower(call, _read_change, policy)


class StreamKey(NamedTuple):
    """Each attempt's streams begin at 0 again."""

    attempt: int
    step: str
    stream: str


class _LogReader:
    """Keeps, per stream, where it must go on, so that bytes that come again are dropped."""

    def __init__(self) -> None:
        self._expected: dict[StreamKey, int] = {}

    def read(self, event: ServerSentEvent) -> tuple[list[LogItem], bool]:
        said = _json_of(event)
        try:
            if event.event == "end":
                return [LogEnd(said["state"], said.get("exit_code"), said.get("signal"))], True
            if event.event in ("gap", "cut"):
                return self._gap(said, is_cut=event.event == "cut"), False
            if "data" not in said:
                return [], False  # a kind of event that a later service may have
            return self._chunk(said), False
        except (KeyError, TypeError, binascii.Error) as error:
            raise _unintelligible(f"a log event that lacks something or is not base64: {error!r}") from None

    def _chunk(self, said: dict[str, Any]) -> list[LogItem]:
        data = base64.b64decode(said["data"], validate=True)
        key, offset = _key_of(said), int(said["offset"])
        expected = self._expected.get(key, offset)
        items: list[LogItem] = []
        if offset < expected:
            data, offset = data[expected - offset :], expected
        if offset > expected:
            items.append(LogGap(*key, offset=expected, to=offset, is_cut=False))
        self._expected[key] = offset + len(data)
        if data:
            items.append(LogChunk(*key, offset=offset, data=data))
        return items

    def _gap(self, said: dict[str, Any], *, is_cut: bool) -> list[LogItem]:
        key, offset, to = _key_of(said), int(said["offset"]), int(said["to"])
        if to <= self._expected.get(key, 0):
            return []
        self._expected[key] = to
        return [LogGap(*key, offset=offset, to=to, is_cut=is_cut)]


def _key_of(said: dict[str, Any]) -> StreamKey:
    return StreamKey(int(said.get("attempt") or 0), str(said["step"]), str(said["stream"]))


def _read_change(event: ServerSentEvent) -> tuple[list[JobChange], bool]:
    from runyard.wire.answers import EventAnswer

    try:
        said = EventAnswer.model_validate_json(event.data)
    except ValueError as error:
        raise _unintelligible(str(error)) from error
    change = JobChange(
        cursor=event.id,
        at=said.at,
        tenant=said.tenant,
        queue=said.queue,
        job=said.job,
        uid=said.uid,
        state=said.state,
        attempt=said.attempt,
        reason=said.reason,
    )
    return [change], False


def _json_of(event: ServerSentEvent) -> dict[str, Any]:
    try:
        said = json.loads(event.data)
    except ValueError as error:
        raise _unintelligible(str(error)) from None
    if not isinstance(said, dict):
        raise _unintelligible(f"{event.event} event is no object")
    return said


def _unintelligible(detail: str) -> ServerFault:
    return ServerFault(
        f"cannot read the stream: {detail}",
        code="unintelligible",
        cure="use a runyard client of the service's version",
    )
