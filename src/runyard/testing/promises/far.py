"""What places behind a network promise besides: silence is no proof, a refusal is no half start (I4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from runyard.model.errors import NoCapacity, ProviderError, Unreachable
from runyard.model.outcome import OutcomeKind
from runyard.model.pool import Demand
from runyard.providers.port import Provider
from runyard.testing.promises.world import FarProviderWorld, Following, attempts_in, following
from runyard.testing.tiny_commands import TinyCommand


class FarPromises:
    async def test_a_start_whose_reply_was_lost_is_adopted_and_not_repeated(
        self, world: FarProviderWorld
    ) -> None:
        provider, request = await world.start_provider(), world.request()
        await world.lose_next_start_reply(provider)
        outcome = None
        while outcome is None:
            try:
                outcome = await Following(world, provider, request).outcome()
            except Unreachable:
                continue  # as dispatch does: ask again
        assert outcome.kind is OutcomeKind.SUCCEEDED
        assert world.count_starts(request.key) == 1

    async def test_a_refused_start_leaves_nothing_and_may_be_tried_again(
        self, world: FarProviderWorld
    ) -> None:
        provider, request = await world.start_provider(), world.request()
        await world.refuse_next_start(provider)
        with pytest.raises(NoCapacity):
            await Following(world, provider, request).outcome()
        assert world.count_starts(request.key) == 0
        await provider.destroy_resource(request.key.resource_name)
        assert attempts_in(await provider.list_resources()) == []
        assert (await Following(world, provider, request).outcome()).kind is OutcomeKind.SUCCEEDED

    async def test_silence_is_never_told_as_an_end(self, world: FarProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request):
            pass
        async with world.cut_off(provider):
            asked = Following(world, provider, request)
            done, _ = await asyncio.wait({asked.task}, timeout=world.patience_s)
            if done:
                with pytest.raises(Unreachable):
                    await asked.task
            await asked.let_go()
        async with following(world, provider, request) as again:
            assert not again.task.done()
        assert world.count_starts(request.key) == 1

    async def test_a_listing_that_could_not_be_had_is_no_empty_one(self, world: FarProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request):
            pass
        async with world.cut_off(provider):
            try:
                listing = await provider.list_resources()
            except ProviderError:
                return
            assert attempts_in(listing) or not listing.is_complete

    async def test_every_call_that_fails_fails_with_a_provider_error(self, world: FarProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request()
        async with world.cut_off(provider):
            for call in _short_calls(provider, world):
                try:
                    async with asyncio.timeout(world.deadline_s):
                        await call()
                except ProviderError:
                    continue
        assert world.count_starts(request.key) == 0

    async def test_what_was_destroyed_before_it_ended_is_never_told_as_succeeded(
        self, world: FarProviderWorld
    ) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request) as followed:
            await provider.destroy_resource(request.key.resource_name)
            outcome = await followed.outcome()
        assert outcome.kind in (OutcomeKind.LOST, OutcomeKind.CANCELED)


def _short_calls(provider: Provider, world: FarProviderWorld) -> list[Callable[[], Awaitable[object]]]:
    key = world.request().key
    return [
        lambda: provider.can_dequeue(world.requirements),
        lambda: provider.stop_job(key, grace_s=1.0),
        lambda: provider.handle_queue_size(Demand(at=0.0), world.records),
        provider.list_resources,
        lambda: provider.destroy_resource(key.resource_name),
    ]
