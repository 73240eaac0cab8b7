"""can_dequeue, handle_queue_size, check, and the provider's own life."""

from __future__ import annotations

from runyard.model.pool import AvailabilityKind, ClassDemand, Demand
from runyard.testing.promises.world import ProviderWorld, attempts_in, following
from runyard.testing.tiny_commands import TinyCommand


class AnsweringPromises:
    async def test_a_started_provider_says_what_it_has_and_what_isolates(self, world: ProviderWorld) -> None:
        provider = await world.start_provider()
        assert provider.shape.slots > 0
        assert provider.shape.budget.cpu_millis > 0
        assert provider.shape.budget.memory_bytes > 0
        assert provider.capabilities.description

    async def test_what_fits_is_taken_now_or_soon(self, world: ProviderWorld) -> None:
        answer = await (await world.start_provider()).can_dequeue(world.requirements)
        match answer.kind:
            case AvailabilityKind.NOW:
                assert answer.room > 0
            case AvailabilityKind.SOON:
                assert answer.code is not None
                assert answer.why
            case AvailabilityKind.NEVER:
                raise AssertionError(answer.why)

    async def test_what_can_never_run_is_said_with_a_reason_that_names_it(self, world: ProviderWorld) -> None:
        answer = await (await world.start_provider()).can_dequeue(world.impossible)
        assert answer.kind is AvailabilityKind.NEVER
        assert len(answer.why.split()) > 3, "a sentence for the user"
        if world.impossible.arch is not None:
            assert world.impossible.arch in answer.why

    async def test_asking_starts_nothing(self, world: ProviderWorld) -> None:
        provider = await world.start_provider()
        for requirements in (world.requirements, world.impossible):
            await provider.can_dequeue(requirements)
        assert attempts_in(await provider.list_resources()) == []

    async def test_a_demand_above_the_maximum_is_clamped_and_no_error(self, world: ProviderWorld) -> None:
        provider = await world.start_provider()
        crowd = ClassDemand(
            class_key=world.requirements.class_key(), requirements=world.requirements, queued=1_000_000
        )
        supply = await provider.handle_queue_size(Demand(at=0.0, classes=(crowd,)), world.records)
        assert 0 <= supply.idle <= supply.slots <= provider.shape.slots

    async def test_no_demand_ends_nothing_that_runs(self, world: ProviderWorld) -> None:
        provider, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, provider, request) as followed:
            await provider.handle_queue_size(Demand(at=0.0, running=1), world.records)
            assert attempts_in(await provider.list_resources()) == [request.key.resource_name]
            assert not followed.task.done()

    async def test_a_check_finds_all_well_and_leaves_nothing(self, world: ProviderWorld) -> None:
        provider = await world.start_provider()
        findings = await provider.check()
        assert findings
        assert all(finding.name and finding.message for finding in findings)
        assert all(finding.cure for finding in findings if not finding.ok), "each complaint names its cure"
        assert attempts_in(await provider.list_resources()) == []

    async def test_closing_lets_attempts_run_on(self, world: ProviderWorld) -> None:
        old, request = await world.start_provider(), world.request(TinyCommand.WAIT)
        async with following(world, old, request):
            pass
        await old.close()
        async with following(world, await world.start_provider(), request) as followed:
            assert not followed.task.done()
        assert world.count_starts(request.key) == 1
