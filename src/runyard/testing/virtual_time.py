"""An asyncio loop whose clock jumps when nothing is left to do now, and processes in it that can be frozen.

An hour of leases and back-offs passes in milliseconds, and the same program takes the same turns each time. Real I/O
and threads have no place here: a wait that no timer and no call can end is reported as a deadlock.

A `Process` is a group of tasks that stops as one, at whatever await it stands: for ever (a crash), or until it is
thawed (SIGSTOP, then SIGCONT: what fell due meanwhile runs then). Tasks belong to the process in whose context they
were made.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any

_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Process:
    """Tasks that are frozen and thawed together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_frozen = False
        self._parked: list[_Turn] = []

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Tasks and timers made within belong to this process, and so do those that they make."""
        token = _PROCESS.set(self)
        try:
            yield
        finally:
            _PROCESS.reset(token)

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        """What fell due meanwhile runs now, in the order in which it fell due."""
        self.is_frozen = False
        parked, self._parked = self._parked, []
        loop = asyncio.get_running_loop()
        for turn in parked:
            loop.call_soon(turn, context=_outside())

    def park(self, turn: _Turn) -> None:
        self._parked.append(turn)


class _Turn:
    """One callback of a process: runs, or is parked while the process is frozen."""

    __slots__ = ("args", "callback", "context", "handle", "process")

    def __init__(
        self, process: Process, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> None:
        self.process = process
        self.callback = callback
        self.args = args
        self.context = context
        self.handle: asyncio.Handle | None = None

    def __call__(self) -> None:
        if self.process.is_frozen:
            self.process.park(self)
        elif self.handle is None or not self.handle.cancelled():
            self.context.run(self.callback, *self.args)


class _NoInput(selectors.SelectSelector):
    """Never waits: hands the time that the loop would sleep to the loop."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("deadlock: every task waits, and no timer is set")
        if timeout > 0:
            self._pass_time(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at time zero. Usable as a `loop_factory`, also of anyio's pytest plugin."""

    def __init__(self) -> None:
        self._at = 0.0
        super().__init__(_NoInput(self._pass))

    def time(self) -> float:
        return self._at

    def _pass(self, seconds: float) -> None:
        self._at += seconds

    # Their callbacks' types are checked by the callers; typeshed ties them to the arguments, which nothing here needs.
    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = copy_context() if context is None else context
        process = context.get(_PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        turn = _Turn(process, callback, args, context)
        turn.handle = super().call_soon(turn, context=_outside())
        return turn.handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """What is called across threads is called across processes here: it belongs to none."""
        return self.call_soon(callback, *args, context=_outside())

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        process = context.get(_PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        turn = _Turn(process, callback, args, context)
        handle = super().call_at(when, turn, context=_outside())
        turn.handle = handle
        return handle


def call_outside(delay_s: float, callback: Callable[..., object], *args: Any) -> None:
    """Calls it later, whatever becomes of the process that asks: the world's own doing."""
    asyncio.get_running_loop().call_later(delay_s, callback, *args, context=_outside())


def _outside() -> Context:
    """A context of no process. A new one each time, because one cannot be entered twice at once."""
    return Context()
