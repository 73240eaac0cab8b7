"""The followed logs of one attempt: the setup's, and the steps' as their turn comes."""

from __future__ import annotations

import asyncio

import structlog

from runyard.logs.layout import SETUP, step_key
from runyard.providers.kubernetes.client import KubernetesClient
from runyard.providers.kubernetes.layout import PREPARE, step_container
from runyard.providers.kubernetes.log_following import LogFollower
from runyard.providers.kubernetes.sighting import Ended, Running, Sighting
from runyard.providers.port import RunContext

DRAIN_S = 20.0
"""Of reading what is left once the containers have ended. A node that is gone has nothing to give."""

WORDS_STREAM = "stderr"
"""Of the setup: the containers have none of their own, so what Runyard says goes there."""

log = structlog.get_logger()


class AttemptLogs:
    """All step containers run from the beginning and wait; a stream for each would hold a connection for nothing. So
    the one after the latest that began is followed too, and no other: its first line is live.
    """

    def __init__(self, client: KubernetesClient, context: RunContext) -> None:
        self._client = client
        self._context = context
        self._ended: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, sighting: Sighting) -> None:
        """What is to be followed by now. Safe to repeat."""
        self._see(sighting, PREPARE, SETUP, sighting.prepare)
        for index, state in enumerate(sighting.steps):
            self._see(sighting, step_container(index), step_key(index), state)
            if (
                not isinstance(state, Ended)
                and index > 0
                and not isinstance(sighting.steps[index - 1], Ended)
            ):
                return

    def _see(self, sighting: Sighting, container: str, step: str, state: object) -> None:
        if isinstance(state, Running | Ended) and container not in self._tasks:
            ended = self._ended[container] = asyncio.Event()
            follower = LogFollower(
                self._client,
                self._context.log,
                pod=sighting.pod_name,
                container=container,
                step=step,
                ended=ended,
            )
            self._tasks[container] = asyncio.create_task(follower.follow())
        if isinstance(state, Ended) and container in self._ended:
            self._ended[container].set()

    def need_kept(self) -> None:
        """Raises what kept a log from being stored."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled():
                task.result()

    async def drain(self) -> None:
        """Until all is kept that can still be had: nothing more runs. Raises what the store raises."""
        for ended in self._ended.values():
            ended.set()
        if not self._tasks:
            return
        _, left = await asyncio.wait(self._tasks.values(), timeout=DRAIN_S)
        if left:
            log.warning("kubernetes_log_not_drained", streams=len(left), after_s=DRAIN_S)
        self.need_kept()

    async def say(self, words: list[str]) -> None:
        """Adds lines of ours, for the user to read."""
        if words:
            offset = await self._context.log.size(SETUP, WORDS_STREAM)
            await self._context.log.append(
                SETUP, WORDS_STREAM, offset, "".join(f"{line}\n" for line in words).encode()
            )

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
