"""The watch misses no state: over ended, reset and expired connections, and over what happened while it was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from runyard.providers.kubernetes.client import SECRETS, KubernetesClient
from runyard.providers.kubernetes.shared_watch import SharedWatch
from tests.kubernetes.strict_server import Kind, StrictServer
from tests.providers.kubernetes.test_client import secret


class Told:
    """What the listener was told last of each object, and when something new came."""

    def __init__(self) -> None:
        self.states: dict[str, tuple[str, bool]] = {}
        self.gone: list[str] = []
        self.changed = asyncio.Event()

    def listen(self, found: dict[str, Any], is_gone: bool) -> None:
        name = found["metadata"]["name"]
        self.states[name] = (found["metadata"]["labels"].get("step", ""), is_gone)
        if is_gone:
            self.gone.append(found["metadata"]["uid"])
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def watch(client: KubernetesClient, told: Told) -> AsyncIterator[SharedWatch]:
    started = SharedWatch(client, SECRETS, labels="ours=yes", listen=told.listen)
    started.start()
    await started.synced()
    yield started
    await started.close()


async def step(client: KubernetesClient, name: str, value: str) -> None:
    await client.patch(SECRETS, name, {"metadata": {"labels": {"step": value}}})


async def test_what_is_made_changed_and_deleted_is_told(
    client: KubernetesClient, watch: SharedWatch, told: Told
) -> None:
    await client.create(SECRETS, secret("one", ours="yes"))
    await client.create(SECRETS, secret("other", ours="no"))
    await step(client, "one", "1")
    await told.until(lambda: told.states.get("one") == ("1", False))
    await client.delete(SECRETS, "one")
    await told.until(lambda: told.states["one"] == ("1", True))
    assert "other" not in told.states
    assert watch.objects == {}


@pytest.mark.parametrize("by_reset", [True, False])
async def test_a_watch_that_ends_every_other_event_misses_nothing(
    server: StrictServer, client: KubernetesClient, watch: SharedWatch, told: Told, by_reset: bool
) -> None:
    server.faults.watch_events_max, server.faults.watch_cut = 2, by_reset
    for number in range(6):
        await client.create(SECRETS, secret(f"s{number}", ours="yes"))
        await step(client, f"s{number}", "last")
    await told.until(lambda: sum(state == ("last", False) for state in told.states.values()) == 6)


async def test_a_history_that_expired_is_made_good_by_a_listing(
    server: StrictServer, client: KubernetesClient, watch: SharedWatch, told: Told
) -> None:
    for name in ("stays", "goes"):
        await client.create(SECRETS, secret(name, ours="yes"))
    await told.until(lambda: len(told.states) == 2)
    gone = server.faults.broken("GET .*watch=true", times=None, code=503)
    server.watches.cut()
    await client.delete(SECRETS, "goes")
    await client.create(SECRETS, secret("comes", ours="yes"))
    await step(client, "stays", "later")
    server.store.compact()
    gone.times = gone.hits
    await told.until(lambda: told.states.get("comes") == ("", False))
    assert told.states == {"stays": ("later", False), "goes": ("", True), "comes": ("", False)}


async def test_an_object_that_was_made_anew_meanwhile_is_told_as_gone_first(
    server: StrictServer, client: KubernetesClient, watch: SharedWatch, told: Told
) -> None:
    made = await client.create(SECRETS, secret("one", ours="yes"))
    assert made is not None
    await told.until(lambda: "one" in told.states)
    server.store.compact()
    server.watches.cut()
    await client.delete(SECRETS, "one")
    await client.create(SECRETS, secret("one", ours="yes", step="second"))
    await told.until(lambda: told.states["one"] == ("second", False))
    assert told.gone == [made["metadata"]["uid"]]


async def test_a_cluster_that_is_out_of_reach_is_said_and_found_again(
    server: StrictServer, client: KubernetesClient, watch: SharedWatch, told: Told
) -> None:
    cut = server.faults.plan("GET .*secrets", Kind.RESET, times=None)
    server.watches.cut()
    async with asyncio.timeout(10):
        while watch.trouble is None:  # noqa: ASYNC110 -- nobody is told when a watch is lost
            await asyncio.sleep(0.01)
    cut.times = cut.hits
    await client.create(SECRETS, secret("one", ours="yes"))
    await told.until(lambda: "one" in told.states)
    assert watch.broken_for_s == 0
