"""A process that submits from eight tasks for ever and says which jobs were acknowledged, until it is killed."""

import asyncio
import os
import sys
import time

from runyard.ledger.opening import create_ledger
from tests.contracts.ledger.world import new_job


class SystemClock:
    def now(self) -> float:
        return time.time()

    def boottime(self) -> float:
        return time.monotonic()


async def main(path: str, first: int) -> None:
    ledger = create_ledger(f"sqlite://{path}", clock=SystemClock())
    await ledger.open()

    async def submit(task: int) -> None:
        for number in range(first + task, 1 << 60, 8):
            [answer] = await ledger.submit([new_job(number)])
            os.write(1, f"{answer.job.uid}\n".encode())  # type: ignore[union-attr]

    await asyncio.gather(*(submit(task) for task in range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
