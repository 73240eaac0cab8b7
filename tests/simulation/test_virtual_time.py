"""The loop whose clock jumps, and the processes in it."""

from __future__ import annotations

import asyncio
import time

import pytest

from runyard.testing.virtual_time import Process, VirtualTimeLoop, call_outside


def run(main):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def test_a_day_passes_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run(main()) == pytest.approx(86_400)
    assert time.monotonic() - began < 5


def test_a_wait_that_nothing_can_end_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="deadlock"):
        run(main())


async def count(seen: list[float]) -> None:
    while True:
        await asyncio.sleep(1)
        seen.append(asyncio.get_running_loop().time())


def test_a_frozen_process_goes_on_where_it_stood_and_so_do_its_children() -> None:
    async def main() -> list[float]:
        seen: list[float] = []
        process = Process("service")

        async def parent() -> None:
            await asyncio.create_task(count(seen))

        with process.entered():
            task = asyncio.create_task(parent())
        await asyncio.sleep(2.5)
        process.freeze()
        await asyncio.sleep(10)
        assert seen == [1, 2]
        process.thaw()
        await asyncio.sleep(1.2)
        task.cancel()
        return seen

    assert run(main()) == [1, 2, 12.5, 13.5]


def test_a_time_out_that_was_cancelled_before_the_thaw_does_not_fire_after_it() -> None:
    async def main() -> str:
        process = Process("service")

        async def wait() -> str:
            async with asyncio.timeout(5):
                await asyncio.sleep(1)
            return "in time"

        with process.entered():
            task = asyncio.create_task(wait())
        await asyncio.sleep(0.5)
        process.freeze()
        await asyncio.sleep(1)
        process.thaw()
        return await task

    assert run(main()) == "in time"


def test_what_is_called_outside_happens_whatever_becomes_of_the_caller() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        process = Process("service")

        async def ask() -> None:
            call_outside(5, seen.append, "arrived")
            asyncio.get_running_loop().call_later(5, seen.append, "own timer")

        with process.entered():
            asking = asyncio.create_task(ask())
        await asking
        process.freeze()
        await asyncio.sleep(10)
        return seen

    assert run(main()) == ["arrived"]
