"""The conformance suite finds what it is there for: providers that break one promise each."""

from __future__ import annotations

import pytest

from runyard.model.errors import Unreachable
from runyard.model.outcome import lost
from runyard.providers.port import ResourceListing
from runyard.testing.conformance import FarProviderConformance, virtual_time
from runyard.testing.scripted_provider import ScriptedProvider
from tests.contracts.providers.test_scripted_provider import ScriptedWorld


@pytest.fixture
def anyio_backend():
    return virtual_time


class StartsAgain(ScriptedProvider):
    async def run_job(self, attempt, context):
        self.world.places.pop(attempt.key.resource_name, None)
        return await super().run_job(attempt, context)


class EndsWithItsFollower(ScriptedProvider):
    async def run_job(self, attempt, context):
        try:
            return await super().run_job(attempt, context)
        finally:
            self.world.destroy(attempt.key.resource_name)


class ForgetsEarlyStops(ScriptedProvider):
    async def stop_job(self, key, *, grace_s):
        if key.resource_name in self.world.places:
            await super().stop_job(key, grace_s=grace_s)


class NeverKills(ScriptedProvider):
    async def stop_job(self, key, *, grace_s):
        await super().stop_job(key, grace_s=1e9)


class TakesSilenceForAnEnd(ScriptedProvider):
    async def run_job(self, attempt, context):
        try:
            return await super().run_job(attempt, context)
        except Unreachable as error:
            return lost(error.message, was_seen=True)


class ListsNothingWhenCutOff(ScriptedProvider):
    async def list_resources(self):
        try:
            return await super().list_resources()
        except Unreachable:
            return ResourceListing(resources=(), is_complete=True)


class MindsTheMissing(ScriptedProvider):
    async def destroy_resource(self, name):
        if name not in self.world.places:
            raise KeyError(name)
        await super().destroy_resource(name)


BROKEN = {
    StartsAgain: "test_a_repeated_run_job_adopts_the_running_attempt",
    EndsWithItsFollower: "test_cancelling_the_coroutine_leaves_the_attempt_running",
    ForgetsEarlyStops: "test_a_stop_before_the_start_starts_nothing",
    NeverKills: "test_what_ignores_the_stop_is_killed_after_its_grace",
    TakesSilenceForAnEnd: "test_silence_is_never_told_as_an_end",
    ListsNothingWhenCutOff: "test_a_listing_that_could_not_be_had_is_no_empty_one",
    MindsTheMissing: "test_destroying_what_is_missing_is_success",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_a_broken_promise_fails_its_test(broken: type[ScriptedProvider], tmp_path) -> None:
    class BrokenWorld(ScriptedWorld):
        async def start_provider(self):
            return broken(self.world)

    promise = getattr(FarProviderConformance(), BROKEN[broken])
    with pytest.raises((AssertionError, KeyError, TimeoutError, pytest.fail.Exception)):
        await promise(BrokenWorld(tmp_path))
