"""run_job: starts, adopts, reports; idempotent by the attempt's name."""

from __future__ import annotations

import asyncio

from runyard.model.job import Limits
from runyard.model.outcome import OutcomeKind, ReasonCode
from runyard.testing.promises.world import Following, ProviderWorld, following
from runyard.testing.tiny_commands import EXIT_CODE, OUTPUT, SAID, TinyCommand


class StartingPromises:
    async def test_an_attempt_is_run_to_its_outcome(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request()
        outcome = await provider.run_job(request, world.context(request))
        assert (outcome.kind, outcome.exit_code, outcome.was_seen) == (OutcomeKind.SUCCEEDED, 0, True)
        assert world.count_starts(request.key) == 1

    async def test_a_failed_command_is_told_by_its_exit_code(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.FAIL)
        outcome = await provider.run_job(request, world.context(request))
        assert (outcome.kind, outcome.exit_code) == (OutcomeKind.FAILED, EXIT_CODE)
        assert outcome.reason is not None
        assert outcome.reason.code is ReasonCode.EXIT

    async def test_a_repeated_run_job_adopts_the_running_attempt(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request), following(world, provider, request) as second:
            await provider.stop_job(request.key, grace_s=1.0)
            assert (await second.outcome()).kind is OutcomeKind.CANCELED
        assert world.count_starts(request.key) == 1

    async def test_two_calls_at_the_same_time_start_it_once_and_agree(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.FAIL)
        first, second = Following(world, provider, request), Following(world, provider, request)
        assert await first.outcome() == await second.outcome()
        assert world.count_starts(request.key) == 1

    async def test_cancelling_the_coroutine_leaves_the_attempt_running(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request):
            pass
        listing = await provider.list_resources()
        assert [
            one.is_running is not False for one in listing.resources if one.name == request.key.resource_name
        ] == [True]
        async with following(world, provider, request) as again:
            done, _ = await asyncio.wait({again.task}, timeout=0.05)
            assert not done
        assert world.count_starts(request.key) == 1

    async def test_a_new_provider_adopts_what_the_old_one_started(self, world: ProviderWorld) -> None:
        request = world.request(TinyCommand.WAIT)
        old = await world.start_provider()
        async with following(world, old, request):
            pass
        await old.close()
        new = await world.start_provider()
        async with following(world, new, request) as adopted:
            await new.stop_job(request.key, grace_s=1.0)
            assert (await adopted.outcome()).kind is OutcomeKind.CANCELED
        assert world.count_starts(request.key) == 1

    async def test_an_ended_attempt_gives_the_same_outcome_again_from_any_provider(
        self, world: ProviderWorld
    ) -> None:
        old, request = await world.start_provider(), world.request(TinyCommand.FAIL)
        outcome = await old.run_job(request, world.context(request))
        new = await world.start_provider()
        for provider in (old, new):
            assert await provider.run_job(request, world.context(request)) == outcome
        assert world.count_starts(request.key) == 1

    async def test_what_ended_while_nobody_watched_is_found_ended(self, world: ProviderWorld) -> None:
        request = world.request(TinyCommand.WAIT, limits=Limits(run_s=0.3))
        old = await world.start_provider()
        async with following(world, old, request):
            pass
        await old.close()
        await asyncio.sleep(0.5)  # the place's own time: nobody is there to be told
        new = await world.start_provider()
        outcome = await Following(world, new, request).outcome()
        assert outcome.kind is OutcomeKind.TIMED_OUT
        assert world.count_starts(request.key) == 1

    async def test_each_attempt_of_a_job_is_its_own(self, world: ProviderWorld) -> None:
        provider = await world.start_provider()
        first, second = world.request(TinyCommand.FAIL), world.request(number=2)
        assert (await provider.run_job(first, world.context(first))).kind is OutcomeKind.FAILED
        assert (await provider.run_job(second, world.context(second))).kind is OutcomeKind.SUCCEEDED
        assert [world.count_starts(one.key) for one in (first, second)] == [1, 1]

    async def test_phases_are_recorded_in_order_and_running_is_one_of_them(
        self, world: ProviderWorld
    ) -> None:
        provider, request = await world.start_provider(), world.request()
        context = world.context(request)
        await provider.run_job(request, context)
        assert "running" in context.phases
        assert list(context.phases.values()) == sorted(context.phases.values())

    async def test_who_adopts_records_the_same_phases_and_outputs(self, world: ProviderWorld) -> None:
        request = world.request(TinyCommand.GIVE_OUTPUT)
        first, second = world.context(request), world.context(request)
        await (await world.start_provider()).run_job(request, first)
        await (await world.start_provider()).run_job(request, second)
        assert first.outputs == second.outputs == {"name": OUTPUT}
        assert first.phases == second.phases

    async def test_what_it_printed_is_in_its_log_once_whoever_followed(self, world: ProviderWorld) -> None:
        request = world.request()
        for _ in range(2):
            context = world.context(request)
            await (await world.start_provider()).run_job(request, context)
            assert context.printed() == SAID

    async def test_what_is_told_of_a_place_is_words_and_no_progress_comes_after_the_end(
        self, world: ProviderWorld
    ) -> None:
        provider, request = await world.start_provider(), world.request()
        context = world.context(request)
        await provider.run_job(request, context)
        assert all(name and value for name, value in context.placement.items())
        told = len(context.progress)
        await asyncio.sleep(0.05)
        assert len(context.progress) == told

    async def test_the_limit_of_the_run_ends_it_and_is_named(self, world: ProviderWorld) -> None:
        provider = await world.start_provider()
        request = world.request(TinyCommand.WAIT, limits=Limits(run_s=0.3))
        outcome = await Following(world, provider, request).outcome()
        assert outcome.kind is OutcomeKind.TIMED_OUT
        assert outcome.reason is not None
        assert outcome.reason.code is ReasonCode.RUN_TIMEOUT

    async def test_the_limit_of_a_step_ends_it_and_is_named(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT, step_s=0.3)
        outcome = await Following(world, provider, request).outcome()
        assert outcome.kind is OutcomeKind.TIMED_OUT
        assert outcome.reason is not None
        assert outcome.reason.code is ReasonCode.STEP_TIMEOUT

    async def test_a_killed_place_is_told_as_a_loss_that_was_seen(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request) as followed:
            await world.kill_place(request.key)
            outcome = await followed.outcome()
        assert (outcome.kind, outcome.was_seen) == (OutcomeKind.LOST, True)
        assert outcome.reason is not None
        assert outcome.reason.message
