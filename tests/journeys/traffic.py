"""A round of everything that users do to a service, at once, and every expectation of it checked as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runyard.sdk import AsyncClient
from runyard.sdk.errors import RunyardApiError
from runyard.sdk.following import LogChunk, LogEnd

SMALL = {"cpu": "100m", "memory": "64Mi"}
TENANTS = ("ada", "bob", "eve")
CONFIG = """
[queues.bulk]
running_max = 3
[queues.narrow]
running_max = 1
queued_max = 2
tenant_running_max = 1
[pools.local]
provider = "local"
slots = 8
"""
WAIT_S = 60.0


@dataclass
class Traffic:
    """`folder` takes what is downloaded. `made` counts the jobs; `lose` kills a job's shim, by its uid."""

    client: AsyncClient
    folder: Path
    lose: Callable[[str], Awaitable[None]]
    made: int = 0
    _users: list[Callable[[str], Awaitable[None]]] = field(init=False)

    def __post_init__(self) -> None:
        self._users = [
            self._talkers,
            self._crowd,
            self._quitter_who_waits,
            self._quitter_who_runs,
            self._failure_tried_again,
            self._overstayer,
            self._collector,
            self._networker,
            self._narrow_door,
            self._leavers,
            self._lost_place,
        ]

    async def round(self, name: str) -> None:
        """All users at once; returns when each has seen what it waited for."""
        async with asyncio.TaskGroup() as group:
            for user in self._users:
                group.create_task(user(name))

    async def _submit(self, document: dict[str, Any], **more: Any) -> Any:
        self.made += 1
        return await self.client.submit({"requirements": SMALL, **document}, **more)

    async def _ends(self, job: Any, state: str) -> Any:
        job = await self.client.wait(job.id, tenant=job.tenant, timeout_s=WAIT_S)
        assert job.state == state, f"{job.id} should be {state}: {job}"
        return job

    async def _talkers(self, name: str) -> None:
        """Followed to the end; found by label, run again, deleted."""

        async def talk(tenant: str) -> None:
            job = await self._submit(
                {
                    "steps": [{"run": "echo one; echo two >&2"}, {"command": ["echo", "three"]}],
                    "labels": {"round": name},
                },
                tenant=tenant,
            )
            seen = [item async for item in self.client.follow_log(job.id, tenant=tenant)]
            assert b"".join(item.data for item in seen if isinstance(item, LogChunk)).count(b"\n") == 3
            assert isinstance(seen[-1], LogEnd)
            await self._ends(job, "succeeded")
            self.made += 1
            again = await self.client.retry(job.id, tenant=tenant)
            await self._ends(again, "succeeded")
            found = [one.id async for one in self.client.list(label=f"round={name}", tenant=tenant)]
            assert {job.id, again.id} <= set(found)
            await self.client.delete(job.id, tenant=tenant)

        await asyncio.gather(*(talk(tenant) for tenant in TENANTS))

    async def _crowd(self, name: str) -> None:
        document = {"steps": [{"command": ["true"]}], "requirements": SMALL, "queue": "bulk"}
        items = await self.client.submit_batch([document] * 20, tenant="crowd")
        self.made += len(items)
        for item in items:
            assert item.id is not None, item
            job = await self.client.wait(item.id, tenant="crowd", timeout_s=WAIT_S)
            assert job.state == "succeeded", job

    async def _quitter_who_waits(self, name: str) -> None:
        job = await self._submit(
            {"steps": [{"run": "sleep 60"}], "requirements": {**SMALL, "labels": {"nowhere": "yes"}},
             "limits": {"queue": "1h"}}
        )  # fmt: skip
        assert (await self.client.why(job.id)).state == "queued"
        await self.client.cancel(job.id)
        await self._ends(job, "canceled")

    async def _quitter_who_runs(self, name: str) -> None:
        job = await self._submit({"steps": [{"run": "echo here; sleep 60 & sleep 60"}]})
        await self._first_words(job)
        await self.client.cancel(job.id)
        await self._ends(job, "canceled")

    async def _failure_tried_again(self, name: str) -> None:
        job = await self._submit({"steps": [{"run": "exit 3"}], "retry": {"failure": 1}, "tenant": "bob"})
        assert (await self._ends(job, "failed")).attempt_count == 2

    async def _overstayer(self, name: str) -> None:
        job = await self._submit({"steps": [{"run": "sleep 60"}], "limits": {"run": "0.3s"}})
        await self._ends(job, "timed_out")

    async def _collector(self, name: str) -> None:
        job = await self._submit(
            {
                "steps": [{"run": "mkdir out; cat in.txt >out/copy; head -c 300000 /dev/zero >out/big; echo 7 >v"}],
                "workspace": {"files": {"in.txt": "hello"}},
                "artifacts": ["out/*"],
                "outputs": {"V": "v"},
            }
        )  # fmt: skip
        outputs = (await self._ends(job, "succeeded")).outputs
        assert outputs == {"V": "7\n"}, outputs
        files = await self.client.download_artifacts(job.id, self.folder / name)
        assert {file.name for file in files} == {"copy", "big"}

    async def _networker(self, name: str) -> None:
        job = await self._submit({"steps": [{"command": ["true"]}], "network": "open"})
        await self._ends(job, "succeeded")

    async def _narrow_door(self, name: str) -> None:
        """A queue that lets one run and two wait: whoever comes above that is told so."""
        document = {"steps": [{"run": "sleep 0.2"}], "requirements": SMALL, "queue": "narrow"}
        answers = await self.client.submit_batch([document] * 6, tenant="eve")
        taken = [item.id for item in answers if item.id is not None and item.error is None]
        assert 2 <= len(taken) < 6
        self.made += len(taken)
        for job_id in taken:
            await self.client.wait(job_id, tenant="eve", timeout_s=WAIT_S)

    async def _leavers(self, name: str) -> None:
        """Followers of a log and of the feed that go in the middle."""
        job = await self._submit(
            {"steps": [{"run": "i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo $i; sleep 0.05; done"}]}
        )
        await asyncio.gather(
            *(self._first_words(job) for _ in range(3)), *(self._first_events(5) for _ in range(3))
        )
        await self._ends(job, "succeeded")

    async def _lost_place(self, name: str) -> None:
        """The attempt's own process is killed: the job is given to another place, and there it is canceled."""
        job = await self._submit({"steps": [{"run": "echo here; sleep 60"}]})
        await self._first_words(job)
        await self.lose(job.uid)
        await self._first_words(job, attempt=2)
        await self.client.cancel(job.id)
        assert (await self._ends(job, "canceled")).attempt_count == 2

    async def _first_words(self, job: Any, *, attempt: int | None = None) -> None:
        while True:
            with contextlib.suppress(RunyardApiError):
                async with contextlib.aclosing(self._follow(job, attempt)) as items:
                    async for item in items:
                        if isinstance(item, LogChunk):
                            return
            await self.client.get(job.id, wait_s=0.05)  # the attempt is not there yet

    def _follow(self, job: Any, attempt: int | None) -> AsyncIterator[Any]:
        return self.client.follow_log(job.id, attempt=attempt)

    async def _first_events(self, count: int) -> None:
        async with contextlib.aclosing(self.client.events(after="0")) as changes:
            async for _ in changes:
                count -= 1
                if not count:
                    return
