"""list_resources and destroy_resource: the two verbs that the sweep is built from."""

from __future__ import annotations

import asyncio

from runyard.model.attempt import AttemptKey
from runyard.testing.promises.world import ProviderWorld, attempts_in, following
from runyard.testing.tiny_commands import TinyCommand


class ResourcePromises:
    async def test_a_fresh_world_lists_no_attempt_and_says_that_this_is_all(
        self, world: ProviderWorld
    ) -> None:
        listing = await (await world.start_provider()).list_resources()
        assert attempts_in(listing) == []
        assert listing.is_complete

    async def test_a_running_attempt_is_listed_under_its_name(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request):
            listing = await provider.list_resources()
            assert attempts_in(listing) == [request.key.resource_name]
            (found,) = [one for one in listing.resources if one.name == request.key.resource_name]
            assert found.is_running is not False

    async def test_an_ended_attempt_stays_listed_until_it_is_destroyed_and_is_soon_said_not_to_run(
        self, world: ProviderWorld
    ) -> None:
        provider, request = await world.start_provider(), world.request()
        await provider.run_job(request, world.context(request))
        listing = await provider.list_resources()
        assert attempts_in(listing) == [request.key.resource_name]
        async with asyncio.timeout(world.deadline_s):
            while any(  # noqa: ASYNC110 -- the port tells nobody when a listing changes
                resource.is_running for resource in (await provider.list_resources()).resources
            ):
                await asyncio.sleep(0.02)

    async def test_the_mark_of_an_early_stop_can_be_destroyed_like_all_else(
        self, world: ProviderWorld
    ) -> None:
        provider, request = await world.start_provider(), world.request()
        await provider.stop_job(request.key, grace_s=1.0)
        await provider.destroy_resource(request.key.resource_name)
        assert attempts_in(await provider.list_resources()) == []

    async def test_every_listed_name_is_ours(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request()
        await provider.run_job(request, world.context(request))
        names = [resource.name for resource in (await provider.list_resources()).resources]
        assert all(name.startswith("runyard-") for name in names)

    async def test_another_provider_lists_the_same(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request()
        await provider.run_job(request, world.context(request))
        listing = await (await world.start_provider()).list_resources()
        assert attempts_in(listing) == [request.key.resource_name]

    async def test_what_is_destroyed_is_gone_from_the_listing(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request()
        await provider.run_job(request, world.context(request))
        await provider.destroy_resource(request.key.resource_name)
        listing = await provider.list_resources()
        assert (attempts_in(listing), listing.is_complete) == ([], True)

    async def test_a_running_attempt_can_be_destroyed(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.STUBBORN)
        async with following(world, provider, request):
            pass
        await provider.destroy_resource(request.key.resource_name)
        assert attempts_in(await provider.list_resources()) == []

    async def test_destroying_one_leaves_the_others(self, world: ProviderWorld) -> None:
        provider = await world.start_provider()
        one, other = world.request(), world.request(TinyCommand.WAIT, number=2)
        async with following(world, provider, other) as left:
            await provider.run_job(one, world.context(one))
            await provider.destroy_resource(one.key.resource_name)
            assert attempts_in(await provider.list_resources()) == [other.key.resource_name]
            assert not left.task.done()

    async def test_destroying_what_is_missing_is_success(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request()
        await provider.run_job(request, world.context(request))
        for _ in range(2):
            await provider.destroy_resource(request.key.resource_name)
        await provider.destroy_resource(AttemptKey("neverwas00000000", 7).resource_name)

    async def test_destroying_a_name_that_is_not_ours_touches_nothing(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request()
        await provider.run_job(request, world.context(request))
        for name in ("", "..", "../../etc", "somebody-elses", request.key.resource_name + "0"):
            await provider.destroy_resource(name)
        assert attempts_in(await provider.list_resources()) == [request.key.resource_name]
