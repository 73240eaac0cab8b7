"""What the scripted provider does wrong when it is asked to, each in one test."""

from __future__ import annotations

import asyncio

import pytest

from runyard.model.attempt import AttemptKey
from runyard.model.errors import (
    InvalidRequest,
    NoCapacity,
    ProviderDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unreachable,
)
from runyard.model.outcome import succeeded
from runyard.providers.port import AttemptRequest
from runyard.testing.conformance import virtual_time
from runyard.testing.memory_context import MemoryContext
from runyard.testing.misbehaviour import Fault, Verb, lost_reply, refusal
from runyard.testing.plays import Play
from runyard.testing.scripted_provider import ScriptedProvider, World
from tests.factories import a_spec

KEY = AttemptKey("m" * 16, 1)
REQUEST = AttemptRequest(key=KEY, job_id="m", spec=a_spec(), slot=0, epoch=1)
REFUSALS = (
    QuotaExceeded("quota"),
    NoCapacity("none"),
    Throttled("slow down", after_s=1.0),
    ProviderDenied("denied"),
    InvalidRequest("no such shape"),
)


@pytest.fixture
def anyio_backend():
    return virtual_time


@pytest.fixture
async def provider() -> ScriptedProvider:
    world = World(now=asyncio.get_running_loop().time, script=lambda request: Play(lasts_s=1.0))
    return ScriptedProvider(world)


def run(provider: ScriptedProvider) -> asyncio.Task:
    return asyncio.create_task(provider.run_job(REQUEST, MemoryContext()))


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
async def test_a_refusal_of_each_type_does_nothing(provider: ScriptedProvider, error: ProviderError) -> None:
    provider.faults[Verb.RUN].append(refusal(error))
    with pytest.raises(type(error)):
        await run(provider)
    assert provider.world.places == {}


async def test_a_lost_reply_leaves_the_effect(provider: ScriptedProvider) -> None:
    provider.faults[Verb.RUN].append(lost_reply(Unreachable("no answer")))
    with pytest.raises(Unreachable):
        await run(provider)
    assert provider.world.running == [KEY]


async def test_a_late_call_takes_effect_even_when_its_caller_is_gone(provider: ScriptedProvider) -> None:
    provider.faults[Verb.RUN].append(Fault(request_lag_s=5.0))
    task = run(provider)
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(4.5)
    assert provider.world.running == [KEY]


async def test_a_doubled_call_starts_once(provider: ScriptedProvider) -> None:
    provider.faults[Verb.RUN].append(Fault(is_doubled=True))
    assert await run(provider) == succeeded()
    assert provider.world.starts[KEY.resource_name] == 1


async def test_a_crash_of_the_providers_process_tells_its_followers_nothing_of_the_attempt(
    provider: ScriptedProvider,
) -> None:
    task = run(provider)
    await asyncio.sleep(0.5)
    provider.crash()
    with pytest.raises(Unreachable):
        await task
    with pytest.raises(Unreachable):
        await provider.list_resources()
    provider.recover()
    assert await run(provider) == succeeded()


async def test_a_call_can_hang(provider: ScriptedProvider) -> None:
    provider.faults[Verb.STOP].append(Fault(hangs=True))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await provider.stop_job(KEY, grace_s=1)


async def test_listings_can_lag_behind_create_and_destroy(provider: ScriptedProvider) -> None:
    provider.world.listing_lag_s = 10.0
    await asyncio.sleep(100)
    await run(provider)
    assert (await provider.list_resources()).resources == ()
    await asyncio.sleep(10)
    assert len((await provider.list_resources()).resources) == 1
    await provider.destroy_resource(KEY.resource_name)
    assert len((await provider.list_resources()).resources) == 1
    await asyncio.sleep(10)
    assert (await provider.list_resources()).resources == ()


@pytest.mark.parametrize(("admits", "is_complete"), [(True, False), (False, True)])
async def test_a_listing_can_be_partial_and_say_so_or_not(
    provider: ScriptedProvider, admits: bool, is_complete: bool
) -> None:
    await run(provider)
    provider.faults[Verb.LIST].append(Fault(forgets=1.0, admits=admits))
    listing = await provider.list_resources()
    assert (listing.resources, listing.is_complete) == ((), is_complete)


async def test_an_outcome_can_be_told_late(provider: ScriptedProvider) -> None:
    provider.world.outcome_lag_s = 30.0
    task = run(provider)
    await asyncio.sleep(20)
    assert not task.done()
    assert provider.world.running == []
    assert await task == succeeded()
