"""stop_job: ends what runs, forbids what has not started, and minds nothing else."""

from __future__ import annotations

import asyncio

from runyard.model.outcome import OutcomeKind
from runyard.testing.promises.world import Following, ProviderWorld, following
from runyard.testing.tiny_commands import TinyCommand


class StoppingPromises:
    async def test_a_stop_ends_a_running_attempt_canceled(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request) as followed:
            await provider.stop_job(request.key, grace_s=5.0)
            outcome = await followed.outcome()
        assert (outcome.kind, outcome.was_seen) == (OutcomeKind.CANCELED, True)

    async def test_what_ignores_the_stop_is_killed_after_its_grace(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.STUBBORN)
        async with following(world, provider, request) as followed:
            await provider.stop_job(request.key, grace_s=0.3)
            assert (await followed.outcome()).kind is OutcomeKind.CANCELED

    async def test_a_stop_waits_for_nothing(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.STUBBORN)
        async with following(world, provider, request) as followed:
            async with asyncio.timeout(world.deadline_s):
                await provider.stop_job(request.key, grace_s=2 * world.deadline_s)
            assert not followed.task.done()

    async def test_a_stop_before_the_start_starts_nothing(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request()
        await provider.stop_job(request.key, grace_s=1.0)
        outcome = await Following(world, provider, request).outcome()
        assert (outcome.kind, outcome.was_seen) == (OutcomeKind.CANCELED, False)
        assert world.count_starts(request.key) == 0

    async def test_a_stop_before_the_start_is_kept_over_a_restart(self, world: ProviderWorld) -> None:
        request = world.request()
        old = await world.start_provider()
        await old.stop_job(request.key, grace_s=1.0)
        await old.close()
        outcome = await Following(world, await world.start_provider(), request).outcome()
        assert outcome.kind is OutcomeKind.CANCELED
        assert world.count_starts(request.key) == 0

    async def test_a_stop_of_one_attempt_leaves_the_others(self, world: ProviderWorld) -> None:
        provider = await world.start_provider()
        one, other = world.request(TinyCommand.WAIT), world.request(TinyCommand.WAIT, number=2)
        async with following(world, provider, one) as stopped, following(world, provider, other) as left:
            await provider.stop_job(one.key, grace_s=1.0)
            await stopped.outcome()
            assert not left.task.done()

    async def test_a_stop_of_an_ended_attempt_changes_nothing(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.FAIL)
        outcome = await provider.run_job(request, world.context(request))
        await provider.stop_job(request.key, grace_s=1.0)
        assert await provider.run_job(request, world.context(request)) == outcome

    async def test_a_repeated_stop_is_as_one(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request) as followed:
            for _ in range(3):
                await provider.stop_job(request.key, grace_s=5.0)
            assert (await followed.outcome()).kind is OutcomeKind.CANCELED
        await provider.stop_job(request.key, grace_s=1.0)

    async def test_another_provider_stops_what_this_one_follows(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        other = await world.start_provider()
        async with following(world, provider, request) as followed:
            await other.stop_job(request.key, grace_s=5.0)
            assert (await followed.outcome()).kind is OutcomeKind.CANCELED
