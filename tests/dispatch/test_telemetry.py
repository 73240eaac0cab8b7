"""What the dispatcher tells of its work, and what its log says of each decision and effect."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from structlog.testing import capture_logs

from runyard.dispatch.stating import StatedAnswers
from runyard.dispatch.sweep import Sweep
from runyard.dispatch.telemetry import EndedAttempt, NoTelemetry, SharedTelemetry
from runyard.model.errors import Unreachable
from runyard.model.job import JobState, Retry
from runyard.model.outcome import Outcome, succeeded
from runyard.model.pool import Availability, AvailabilityKind, WaitCode, now, soon
from runyard.model.requirements import Requirements
from runyard.providers.port import AttemptRequest, RunContext
from runyard.testing.scripted_provider import ScriptedProvider
from tests.dispatch.conftest import DEADLINE_S, Yard
from tests.dispatch.test_pool_dispatcher import FAILED
from tests.dispatch.test_sweep import LEFT_OVER, leave_over

FULL = soon(WaitCode.POOL_FULL, "all slots are in use")
QUOTA = soon(WaitCode.QUOTA, "no more cores")


class AwayProvider(ScriptedProvider):
    async def can_dequeue(self, requirements: Requirements) -> Availability:
        raise Unreachable("the site is away")


class CachingProvider(ScriptedProvider):
    """Tells the same again whenever it is asked, as one that reads a journal does."""

    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        for cache, result, total in (
            ("named", "restored", 1),
            ("named", "restored", 2),
            ("attic", "dust", 5),
        ):
            await context.record_cache_use(cache, result, total)
        return await super().run_job(attempt, context)


class Heard(NoTelemetry):
    def __init__(self) -> None:
        self.claims: list[tuple[str, str, float]] = []
        self.ends: list[EndedAttempt] = []
        self.answers: list[Collection[Availability]] = []
        self.pruned: list[tuple[int, int]] = []
        self.lost: list[str] = []
        self.something = asyncio.Event()

    def attempt_claimed(self, pool: str, queue: str, *, waited_s: float) -> None:
        self.claims.append((pool, queue, waited_s))

    def attempt_ended(self, ended: EndedAttempt) -> None:
        self.ends.append(ended)
        self.something.set()

    def pool_answered(self, pool: str, answers: Collection[Availability]) -> None:
        self.answers.append(tuple(answers))
        self.something.set()

    def resources_pruned(self, pool: str, *, destroyed: int, kept: int) -> None:
        self.pruned.append((destroyed, kept))

    def lease_lost(self, pool: str) -> None:
        self.lost.append(pool)
        self.something.set()

    async def until_ended(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.ends) < count:
                self.something.clear()
                await self.something.wait()


async def test_an_attempt_is_told_of_at_its_claim_and_at_its_end(yard: Yard) -> None:
    heard = Heard()
    uid = await yard.submit()
    yard.clock.time += 5
    yard.start_owner(telemetry=SharedTelemetry([NoTelemetry(), heard]))
    yard.world.end(await yard.place_of(uid), succeeded())
    await heard.until_ended(1)
    assert heard.claims == [("local", "default", 5.0)]
    [ended] = heard.ends
    assert (ended.pool, ended.queue, ended.state) == ("local", "default", JobState.SUCCEEDED)
    assert any(answer.kind is AvailabilityKind.NOW for answers in heard.answers for answer in answers)


async def test_what_an_attempt_had_of_caches_is_told_once_however_often_its_place_says_it(yard: Yard) -> None:
    heard, provider = Heard(), CachingProvider(yard.world)
    provider.run_errors_after_start.append(Unreachable("a moment"))
    uid = await yard.submit()
    yard.start_owner(provider=provider, telemetry=heard)
    yard.world.end(await yard.place_of(uid), succeeded())
    await heard.until_ended(1)
    [ended] = heard.ends
    assert ended.cache_uses == {("named", "restored"): 2, ("other", "other"): 5}


async def test_a_retry_is_told_with_what_it_has_cost_and_why(yard: Yard) -> None:
    heard = Heard()
    with capture_logs() as lines:
        yard.start_owner(telemetry=heard)
        uid = await yard.submit(retry=Retry(failure=1))
        yard.world.end(await yard.place_of(uid), FAILED)
        await heard.until_ended(1)
        await yard.stop_owners()
    assert heard.ends[0].state is JobState.QUEUED
    [settled] = [line for line in lines if line["event"] == "attempt_settled"]
    assert (settled["job"], settled["pool"], settled["state"]) == ("job-1", "local", "queued")
    assert settled["failures"] == 1
    assert settled["retry_at"] > yard.clock.now()


async def test_a_pool_that_is_lost_is_told_of(yard: Yard) -> None:
    heard = Heard()
    yard.start_owner(telemetry=heard)
    await yard.reaches(await yard.submit(), JobState.RUNNING)
    yard.clock.time += 1000
    async with asyncio.timeout(DEADLINE_S):
        while not heard.lost:
            heard.something.clear()
            await heard.something.wait()
    assert heard.lost[0] == "local"


async def test_a_place_that_refuses_is_logged_once_until_it_says_something_else(yard: Yard) -> None:
    heard, provider = Heard(), ScriptedProvider(yard.world)
    provider.answer = QUOTA
    with capture_logs() as lines:
        yard.start_owner(provider=provider, telemetry=heard)
        async with asyncio.timeout(DEADLINE_S):
            while sum(bool(answers) for answers in heard.answers) < 3:
                await yard.submit()
                heard.something.clear()
                await heard.something.wait()
        await yard.stop_owners()
    [line] = [line for line in lines if line["event"] == "availability_changed"]
    assert (line["pool"], line["code"], line["why"]) == ("local", "quota", "no more cores")


async def test_a_place_that_is_away_is_warned_of_once_and_not_in_each_turn(yard: Yard) -> None:
    heard, provider = Heard(), AwayProvider(yard.world)
    with capture_logs() as lines:
        yard.start_owner(provider=provider, telemetry=heard)
        async with asyncio.timeout(DEADLINE_S):
            while sum(bool(answers) for answers in heard.answers) < 3:
                await yard.submit()
                heard.something.clear()
                await heard.something.wait()
        await yard.stop_owners()
    warned = [line for line in lines if line["event"] == "place_not_asked"]
    assert [(line["pool"], line["error"]) for line in warned] == [("local", "the site is away")]


async def test_that_a_pool_is_full_is_no_line_and_that_a_trouble_ended_is_one(yard: Yard) -> None:
    fence = await yard.ledger.acquire_pool("local", owner="me", lease_s=1000)
    assert fence is not None
    stated = StatedAnswers("local", ledger=yard.ledger, clock=yard.clock)
    with capture_logs() as lines:
        for answer in (FULL, now(1), FULL, QUOTA, QUOTA, FULL, now(1), QUOTA):
            await stated.state(fence, {"small": answer})
            yard.clock.time += 1
    assert [line["code"] for line in lines] == ["quota", "pool_full", "quota"]


async def test_a_sweep_says_once_why_it_keeps_a_left_over(yard: Yard) -> None:
    heard = Heard()
    leave_over(yard)
    fence = await yard.ledger.acquire_pool("local", owner="sweeper", lease_s=1000)
    assert fence is not None
    provider = ScriptedProvider(yard.world)
    sweep = Sweep(ledger=yard.ledger, provider=provider, clock=yard.clock, telemetry=heard)
    with capture_logs() as lines:
        await sweep.run(fence)
        provider.lists_completely = False
        await sweep.run(fence)
        await sweep.run(fence)
        provider.lists_completely = True
        await sweep.run(fence)
    kept = [(line["event"], line["pool"], line["resource"]) for line in lines]
    name = LEFT_OVER.resource_name
    assert kept == [
        ("resource_kept", "local", name),
        ("resource_kept", "local", name),
        ("resource_pruned", "local", name),
    ]
    assert heard.pruned[-1] == (1, 0)
