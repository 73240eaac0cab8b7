"""Sessions that die in the middle of everything: each call took effect wholly or not at all, and can be repeated."""

from __future__ import annotations

import asyncio

import asyncpg

from runyard.model.attempt import AttemptState
from runyard.model.errors import Conflict
from tests.contracts.ledger.world import new_job
from tests.ledger.postgresql.conftest import Start
from tests.ledger.postgresql.workers import audit, count_final, own, persist, work

JOBS = 250


async def test_killed_sessions_lose_nothing_and_do_nothing_twice(start: Start, session: asyncpg.Connection):
    services = [await start(), await start()]
    fences = [await own(service, f"pool-{n}") for n, service in enumerate(services)]
    kills = 0
    is_over = False

    async def kill() -> None:
        nonlocal kills, is_over
        while await count_final(session) < JOBS:
            victim = await session.fetchval(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() ORDER BY (state = 'active') DESC, random() LIMIT 1"
            )
            kills += bool(victim)
            await asyncio.sleep(0.015)
        is_over = True

    async def submit(first: int) -> None:
        for number in range(first, JOBS, 5):
            [answer] = await persist(lambda number=number: services[number % 2].submit([new_job(number)]))
            assert not isinstance(answer, Conflict)

    async with asyncio.timeout(90):
        await asyncio.gather(
            kill(),
            *(submit(first) for first in range(5)),
            *(
                work(service, fence, width=4, is_done=lambda: is_over)
                for service, fence in zip(services, fences, strict=True)
            ),
        )
    assert kills > 10
    assert await session.fetchval("SELECT count(*) FROM jobs") == JOBS
    attempts = await session.fetch("SELECT uid, state, outcome FROM attempts")
    assert len(attempts) == len({row["uid"] for row in attempts}) == JOBS
    assert {row["state"] for row in attempts} == {AttemptState.ENDED.value}
    await audit(session)
