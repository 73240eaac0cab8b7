"""What a container prints is kept once, in order, whatever becomes of the stream and of whoever follows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runyard.model.errors import Unreachable
from runyard.providers.kubernetes.client import PODS, KubernetesClient
from runyard.providers.kubernetes.log_following import STREAM, LogFollower
from runyard.testing.memory_context import MemoryLog
from tests.kubernetes.strict_server import Exit, Kind, StrictServer

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "pod"},
    "spec": {"restartPolicy": "Never", "containers": [{"name": "step-000", "image": "i"}]},
}
LINES = [b"line %d\n" % number for number in range(40)]


class Followed:
    """A container that prints when the test says so, and a follower of it."""

    def __init__(self, server: StrictServer, client: KubernetesClient) -> None:
        self.server, self._client = server, client
        self.log = MemoryLog()
        self.ended = asyncio.Event()

    async def begin(self) -> None:
        self.server.kubelet.runs = False
        await self._client.create(PODS, POD)
        self.server.clock.advance(1)
        self.server.kubelet.start_container("pod", "step-000")

    def say(self, *lines: bytes) -> None:
        for line in lines:
            self.server.clock.advance(0.3)
            self.server.kubelet.say("pod", "step-000", line)

    def end(self) -> None:
        self.server.kubelet.end_container("pod", "step-000", Exit(0))
        self.ended.set()

    def follow(self) -> asyncio.Task[None]:
        follower = LogFollower(
            self._client, self.log, pod="pod", container="step-000", step="000", ended=self.ended
        )
        return asyncio.create_task(follower.follow())

    @property
    def kept(self) -> bytes:
        return self.log.streams.get(("000", STREAM), b"")

    async def until_kept(self, size: int) -> None:
        async with asyncio.timeout(10):
            while len(self.kept) < size:  # noqa: ASYNC110 -- a memory tells nobody
                await asyncio.sleep(0.005)


@pytest.fixture
async def followed(server: StrictServer, client: KubernetesClient) -> Followed:
    made = Followed(server, client)
    await made.begin()
    return made


async def test_lines_are_kept_as_they_are_printed_and_the_last_needs_no_end(followed: Followed) -> None:
    task = followed.follow()
    followed.say(b"one\n")
    await followed.until_kept(4)
    followed.say(b"two\n", b"prompt> ")
    followed.end()
    await asyncio.wait_for(task, 10)
    assert followed.kept == b"one\ntwo\nprompt> "


@pytest.mark.parametrize("bytes_max", [1, 17, 40, 100, 333])
async def test_a_stream_that_breaks_after_every_few_bytes_loses_and_doubles_nothing(
    server: StrictServer, followed: Followed, bytes_max: int
) -> None:
    followed.say(*LINES[:5])
    server.faults.log_bytes_max = bytes_max
    task = followed.follow()
    followed.say(*LINES[5:])
    await asyncio.sleep(0.3)
    server.faults.log_bytes_max = None
    followed.end()
    await asyncio.wait_for(task, 20)
    assert followed.kept == b"".join(LINES)


@pytest.mark.parametrize("cut", range(0, 33, 4))
async def test_who_adopts_goes_on_at_any_byte(followed: Followed, cut: int) -> None:
    content = b"".join(LINES[:4])
    followed.say(*LINES[:4])
    await followed.log.append("000", STREAM, 0, content[:cut])
    followed.end()
    await asyncio.wait_for(followed.follow(), 10)
    assert followed.kept == content


async def test_what_was_printed_between_two_followers_is_kept(followed: Followed) -> None:
    first = followed.follow()
    followed.say(*LINES[:3])
    await followed.until_kept(len(b"".join(LINES[:3])))
    first.cancel()
    followed.say(*LINES[3:6])
    second = followed.follow()
    followed.say(*LINES[6:9])
    followed.end()
    await asyncio.wait_for(second, 10)
    assert followed.kept == b"".join(LINES[:9])


async def test_a_log_that_was_rotated_between_two_followers_goes_on_behind_a_gap(followed: Followed) -> None:
    await followed.log.append("000", STREAM, 0, b"what came before\n")
    followed.say(b"what is left\n")
    followed.end()
    await asyncio.wait_for(followed.follow(), 10)
    assert followed.kept == b"what came before\n\0what is left\n"


async def test_a_pod_that_is_gone_ends_the_following(
    server: StrictServer, client: KubernetesClient, followed: Followed
) -> None:
    task = followed.follow()
    followed.say(b"last words\n")
    await followed.until_kept(11)
    await client.delete(PODS, "pod", grace_s=1)
    server.clock.advance(5)
    await asyncio.wait_for(task, 10)
    assert followed.kept == b"last words\n"


async def test_an_unreachable_server_is_asked_again(server: StrictServer, followed: Followed) -> None:
    server.faults.plan("GET .*/log", Kind.RESET, times=2)
    server.faults.broken("GET .*/log", times=1)
    followed.say(b"here\n")
    followed.end()
    await asyncio.wait_for(followed.follow(), 10)
    assert followed.kept == b"here\n"


async def test_a_store_that_fails_is_told_and_not_taken_for_the_stream(followed: Followed) -> None:
    class Full(MemoryLog):
        async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
            raise Unreachable("the disk is full")

    followed.log = Full()
    followed.say(b"here\n")
    with pytest.raises(Unreachable, match="disk is full"):
        await asyncio.wait_for(followed.follow(), 10)
