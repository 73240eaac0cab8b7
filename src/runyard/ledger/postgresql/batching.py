"""Write-combining: what callers ask for while one call is under way goes together in the next.

Writes for the same queue come one after the other, each held up by the last one's fsync. A service that sends one call
for each caller would get one fsync's worth of throughput; together they share it (what SQLite's writer does). A lone
caller waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from runyard.model.errors import RunyardError

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


class Batcher(Generic[ItemT, AnswerT]):
    """`send` answers each item of a batch, in order; an answer that is an exception is raised to its caller. A batch
    ends with the item that brings its size, by `size_of`, to `size_max`."""

    def __init__(
        self,
        send: Callable[[Sequence[ItemT]], Awaitable[Sequence[AnswerT | Exception]]],
        *,
        size_max: int,
        size_of: Callable[[ItemT], int] = lambda _: 1,
    ) -> None:
        self._send = send
        self._size_max = size_max
        self._size_of = size_of
        self._waiting: list[tuple[ItemT, asyncio.Future[AnswerT]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, item: ItemT) -> AnswerT:
        """A caller that is cancelled meanwhile is not waited for; what it asked for is done all the same."""
        future: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await future

    async def close(self) -> None:
        """Returns once everything that was asked before is answered."""
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        while self._waiting:
            await self._answer(self._next_batch())
        self._task = None

    def _next_batch(self) -> list[tuple[ItemT, asyncio.Future[AnswerT]]]:
        size, count = 0, 0
        while count < len(self._waiting) and size < self._size_max:
            size += self._size_of(self._waiting[count][0])
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _answer(self, batch: Sequence[tuple[ItemT, asyncio.Future[AnswerT]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
        except RunyardError as error:
            _resolve(batch, [error] * len(batch))
        except Exception as error:  # one of them cannot be written at all: the others must not fail with it
            if len(batch) == 1:
                _resolve(batch, [error])
                return
            for one in batch:
                await self._answer([one])
        else:
            _resolve(batch, answers)


def _resolve(
    batch: Sequence[tuple[ItemT, asyncio.Future[AnswerT]]], answers: Sequence[AnswerT | Exception]
) -> None:
    for (_, future), answer in zip(batch, answers, strict=True):
        if future.done():
            continue  # its caller was cancelled
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
