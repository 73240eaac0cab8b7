"""What a provider's author gives to the conformance suite: the places behind the provider, and a hand on them."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

from runyard.model.attempt import UID_LENGTH, AttemptKey
from runyard.model.job import JobSpec, Limits, Step
from runyard.model.outcome import Outcome
from runyard.model.requirements import Requirements
from runyard.providers.port import AttemptRequest, Provider, Records, ResourceListing
from runyard.testing.memory_context import MemoryContext, MemoryLog, NoRecords
from runyard.testing.tiny_commands import TinyCommand


class ProviderWorld(abc.ABC):
    """Fresh for each test. `folder` is an empty one for logs and whatever the world itself keeps."""

    requirements = Requirements()
    """What the tiny commands ask for."""

    impossible = Requirements(arch="pdp11")
    """A class that the places can never take."""

    deadline_s = 30.0
    """How long the suite waits for what must come."""

    patience_s = 3.0
    """How long it watches for what must not come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uid = secrets.token_hex(UID_LENGTH // 2)  # what a host names by it is no other test's
        self._logs: dict[AttemptKey, MemoryLog] = defaultdict(MemoryLog)

    @abc.abstractmethod
    async def start_provider(self) -> Provider:
        """A started provider over this world. Called again within a test: the service was restarted, or another one
        took over; what the earlier object made is there."""

    @abc.abstractmethod
    async def kill_place(self, key: AttemptKey) -> None:
        """The place of a running attempt dies, without a word and for good."""

    @abc.abstractmethod
    def count_starts(self, key: AttemptKey) -> int:
        """How often the attempt's command really began."""

    async def close(self) -> None:
        """Removes all that is left, whatever the test did."""
        return

    @property
    def records(self) -> Records:
        """What dispatch would hand over. Places that are no machines need none."""
        return cast(Records, NoRecords())

    def command(self, tiny: TinyCommand) -> tuple[str, ...]:
        return ("/bin/sh", "-c", tiny.value)

    def request(
        self,
        tiny: TinyCommand = TinyCommand.SUCCEED,
        *,
        number: int = 1,
        limits: Limits | None = None,
        step_s: float | None = None,
    ) -> AttemptRequest:
        """The attempt `number` of the suite's one job. Each has a slot of its own."""
        step = Step(name="main", command=self.command(tiny), timeout_s=step_s)
        spec = JobSpec(steps=(step,), requirements=self.requirements, limits=limits or Limits())
        env = {"RUNYARD_JOB": "conformance", "RUNYARD_ATTEMPT": str(number)}
        return AttemptRequest(
            key=AttemptKey(self.uid, number),
            job_id="conformance",
            spec=spec,
            slot=number - 1,
            epoch=1,
            env=env,
        )

    def context(self, request: AttemptRequest) -> MemoryContext:
        """A service's context for the attempt; each follower has one of its own over the same log."""
        folder = self.folder / request.key.resource_name
        return MemoryContext(folder, records=self.records, log=self._logs[request.key])


class FarProviderWorld(ProviderWorld):
    """Places that are reached over a network, which can be cut and can swallow a reply."""

    @abc.abstractmethod
    def cut_off(self, provider: Provider) -> contextlib.AbstractAsyncContextManager[None]:
        """Within, the provider reaches nothing; the places go on."""

    @abc.abstractmethod
    async def lose_next_start_reply(self, provider: Provider) -> None:
        """The next start of an attempt takes place, and the provider does not hear of it."""

    @abc.abstractmethod
    async def refuse_next_start(self, provider: Provider) -> None:
        """The next start of an attempt is refused for want of capacity."""


class Following:
    """An attempt that is followed in the background, as dispatch does."""

    def __init__(self, world: ProviderWorld, provider: Provider, request: AttemptRequest) -> None:
        self.context = world.context(request)
        self._world, self._key = world, request.key
        self._deadline_s = world.deadline_s
        self.task = asyncio.create_task(provider.run_job(request, self.context))

    async def is_running(self) -> None:
        """Returns once the command was seen running and has said so itself: a stop may else come before its first
        word, and a start that happened would not be counted."""
        reached = asyncio.create_task(self.context.reached("running"))
        async with asyncio.timeout(self._deadline_s):
            await asyncio.wait({reached, self.task}, return_when=asyncio.FIRST_COMPLETED)
        assert reached.done(), f"it ended before it ran: {self.task}"
        async with asyncio.timeout(self._deadline_s):
            while not self._world.count_starts(self._key) and not self.task.done():  # noqa: ASYNC110 -- a file tells
                await asyncio.sleep(0.01)

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(self._deadline_s):
            return await self.task

    async def let_go(self) -> None:
        """Stops following."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def following(
    world: ProviderWorld, provider: Provider, request: AttemptRequest
) -> AsyncIterator[Following]:
    """Followed for the length of the block, and running when it begins."""
    followed = Following(world, provider, request)
    try:
        await followed.is_running()
        yield followed
    finally:
        await followed.let_go()


def attempts_in(listing: ResourceListing) -> Sequence[str]:
    """The names of attempts in it; a provider may list its machines too."""
    return [
        resource.name
        for resource in listing.resources
        if AttemptKey.from_resource_name(resource.name) is not None
    ]
