"""When a call is sent again: what was lost on the way, and what the service asked to repeat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from runyard.sdk.call import Call, Effect, Fetch, Lost, Pause, Plan, Reply, Send, T
from runyard.sdk.errors import RunyardApiError, ServerFault, Unreachable, error_of_answer

_NOT_PROCESSED = frozenset({429, 503})
_PERHAPS_PROCESSED = frozenset({502, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Bounds on repeating one call: `tries_max` in all, and `wait_s_max` spent pausing between them."""

    tries_max: int = 8
    wait_s_max: float = 30.0
    delay_s_first: float = 0.1
    delay_s_max: float = 5.0

    def delay_s(
        self, *, tries: int, waited_s: float, name: str, retry_after_s: float | None = None
    ) -> float | None:
        """Seconds to pause after the `tries`-th try, or None: give up. Jitter comes from the name."""
        if tries >= self.tries_max:
            return None
        jitter = 0.75 + (zlib.crc32(f"{name}{tries}".encode()) % 1000) / 2000
        delay = min(self.delay_s_first * 2.0 ** (tries - 1), self.delay_s_max) * jitter
        if retry_after_s is not None:
            delay = max(delay, retry_after_s)
        return delay if waited_s + delay <= self.wait_s_max else None


PATIENT = RetryPolicy()
NEVER = RetryPolicy(tries_max=1)


def perform(call: Call[T], policy: RetryPolicy) -> Plan[T]:
    """The call's parsed answer. Raises the RunyardApiError that fits, after the last try that `policy` allows."""
    reply = yield from _deliver(Send(call), policy)
    return parsed(call, reply.body)


def perform_fetch(effect: Fetch, policy: RetryPolicy) -> Plan[None]:
    yield from _deliver(effect, policy)


def parsed(call: Call[T], body: bytes) -> T:
    try:
        return call.parse(body)
    except ValueError as error:
        raise ServerFault(
            f"cannot {call.what}: the answer is not what this client understands ({_first_line(error)})",
            code="unintelligible",
            cure="use a runyard client of the service's version",
        ) from error


def _deliver(effect: Send | Fetch, policy: RetryPolicy) -> Plan[Reply]:
    call, waited_s = effect.call, 0.0
    for tries in range(1, policy.tries_max + 1):
        reply, error, may_repeat = yield from _try(effect)
        if reply is not None:
            return reply
        retry_after_s = getattr(error, "retry_after_s", None)
        delay_s = policy.delay_s(tries=tries, waited_s=waited_s, name=call.path, retry_after_s=retry_after_s)
        if not may_repeat or delay_s is None:
            raise error
        waited_s += delay_s
        yield Pause(delay_s)
    raise AssertionError("the policy allows a try that it does not bound")


def _try(effect: Send | Fetch) -> Plan[tuple[Reply | None, RunyardApiError, bool]]:
    """One try: the reply if it is a good one, else the error and whether sending again is safe and may help."""
    call: Call[Any] = effect.call
    failed = Unreachable(f"cannot {call.what}")
    try:
        sending: Effect = effect
        reply: Reply = yield sending
    except Lost as lost:
        return None, unreachable(call.what, lost), call.is_repeatable or not lost.was_sent
    if 200 <= reply.status < 300:
        return reply, failed, False
    error = error_of_answer(
        call.what, status=reply.status, body=reply.body, retry_after_s=reply.retry_after_s
    )
    may_repeat = reply.status in _NOT_PROCESSED or (reply.status in _PERHAPS_PROCESSED and call.is_repeatable)
    return None, error, may_repeat


def unreachable(what: str, lost: Lost) -> Unreachable:
    return Unreachable(
        f"cannot {what}: {lost.message}",
        code="unreachable",
        cure="check that the service runs (`runyard serve`) and that RUNYARD_URL is right",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
