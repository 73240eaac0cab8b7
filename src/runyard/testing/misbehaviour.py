"""What can go wrong with one call to a place, as a value, and the delivery of a call that it goes wrong with.

The request is on its way independently of who sent it: a caller that crashed, was paused or was cancelled meanwhile
does not call it back. That is what makes a create succeed that nobody knows of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from runyard.model.errors import ProviderError
from runyard.testing.virtual_time import call_outside

T = TypeVar("T")


class Verb(StrEnum):
    """The calls of the port that can go wrong."""

    CAN_DEQUEUE = "can_dequeue"
    RUN = "run_job"
    STOP = "stop_job"
    QUEUE_SIZE = "handle_queue_size"
    LIST = "list_resources"
    DESTROY = "destroy_resource"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`reaches` False: nothing happens there (a refusal, a lost request). `error` is what the caller gets; with
    `reaches` it is a lost reply: the effect is there all the same. `is_doubled`: the request arrives twice. `hangs`:
    no answer, ever. `forgets` is the share of a listing that is left out, `admits` says that it is partial."""

    request_lag_s: float = 0.0
    reply_lag_s: float = 0.0
    error: Exception | None = None
    reaches: bool = True
    is_doubled: bool = False
    hangs: bool = False
    forgets: float = 0.0
    admits: bool = True


def refusal(error: ProviderError) -> Fault:
    """The place said no, and did nothing."""
    return Fault(error=error, reaches=False)


def lost_request(error: ProviderError) -> Fault:
    return Fault(error=error, reaches=False)


def lost_reply(error: ProviderError) -> Fault:
    """It happened; the caller only reads that something went wrong."""
    return Fault(error=error, reaches=True)


async def deliver(fault: Fault, effect: Callable[[], T]) -> T:
    """The effect's result, as late and as wrong as the fault says."""
    reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def arrive() -> None:
        try:
            result = effect() if fault.reaches else None
            if fault.reaches and fault.is_doubled:
                result = effect()
        except Exception as error:
            call_outside(fault.reply_lag_s, answer, None, error)
        else:
            call_outside(fault.reply_lag_s, answer, result, fault.error)

    def answer(result: T, error: Exception | None) -> None:
        if reply.done() or fault.hangs:
            return
        if error is not None:
            reply.set_exception(error)
        else:
            reply.set_result(result)

    call_outside(fault.request_lag_s, arrive)
    return await reply
