"""Secrets on their way from the ledger to a provider: when they are resolved, and what an attempt ends as without."""

from __future__ import annotations

import pytest

from runyard.model.attempt import AttemptKey
from runyard.model.errors import NoCapacity, NotFound, SecretsUnavailable, Unreachable
from runyard.model.job import Job, JobState
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, succeeded
from runyard.model.secret import SecretUse, SecretValue
from runyard.testing.scripted_provider import ScriptedProvider
from tests.dispatch.conftest import Yard

VALUE = b"correct-horse-battery"
USES = (SecretUse(name="TOKEN", env="TOKEN"),)


class Vault:
    """What hands out; `problem` is raised instead while it is set."""

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.handed: list[str] = []

    async def __call__(self, job: Job, key: AttemptKey, *, pool: str) -> tuple[SecretValue, ...]:
        if self.problem is not None:
            raise self.problem
        self.handed.append(f"{key.resource_name} in {pool}")
        return (SecretValue(name="TOKEN", env="TOKEN", value=VALUE),)


class Watching(ScriptedProvider):
    """Remembers what each call of run_job brought."""

    def __init__(self, yard: Yard) -> None:
        super().__init__(yard.world)
        self.brought: list[tuple[bytes, ...]] = []

    async def run_job(self, attempt, context):
        self.brought.append(tuple(secret.value for secret in attempt.secrets))
        assert VALUE not in repr(attempt).encode()
        return await super().run_job(attempt, context)


@pytest.fixture
def vault() -> Vault:
    return Vault()


async def test_a_provider_gets_them_with_each_call_and_a_hand_out_is_noted_once(
    yard: Yard, vault: Vault
) -> None:
    provider = Watching(yard)
    provider.run_errors_after_start = [Unreachable("no answer")]
    yard.start_owner(provider=provider, hand_out=vault)
    uid = await yard.submit(secrets=USES)
    yard.world.end(await yard.place_of(uid), succeeded())
    await yard.reaches(uid, JobState.SUCCEEDED)
    assert provider.brought == [(VALUE,), (VALUE,)]
    assert vault.handed == [f"runyard-{uid}-1 in local"]


async def test_who_adopts_resolves_them_again(yard: Yard, vault: Vault) -> None:
    yard.start_owner(hand_out=vault)
    uid = await yard.submit(secrets=USES)
    await yard.reaches(uid, JobState.RUNNING)
    await yard.stop_owners()
    provider = Watching(yard)
    yard.start_owner("service-1", provider=provider, hand_out=vault)
    yard.world.end(AttemptKey(uid, 1), succeeded())
    await yard.reaches(uid, JobState.SUCCEEDED)
    assert provider.brought == [(VALUE,)]
    assert len(vault.handed) == 2


async def test_a_job_without_secrets_asks_for_none(yard: Yard, vault: Vault) -> None:
    vault.problem = NotFound("never asked")
    yard.start_owner(hand_out=vault)
    uid = await yard.submit()
    yard.world.end(await yard.place_of(uid), succeeded())
    await yard.reaches(uid, JobState.SUCCEEDED)


async def test_an_attempt_whose_secret_is_gone_is_refused_and_nothing_is_started(
    yard: Yard, vault: Vault
) -> None:
    vault.problem = NotFound("tenant 'default' has no secret 'TOKEN'")
    yard.start_owner(hand_out=vault)
    uid = await yard.submit(secrets=USES)
    job = await yard.reaches(uid, JobState.REFUSED)
    assert job.reason is not None
    assert (job.reason.code, job.reason.message) == (
        ReasonCode.SECRET,
        "tenant 'default' has no secret 'TOKEN'",
    )
    assert yard.world.places == {}


async def test_an_attempt_whose_key_is_not_here_is_given_back(yard: Yard, vault: Vault) -> None:
    vault.problem = SecretsUnavailable("secret 'TOKEN' is sealed by another key")
    yard.start_owner(hand_out=vault)
    uid = await yard.submit(secrets=USES)
    job = await _given_back(yard, uid)
    assert (job.unseen_tries, job.failures) == (1, 0)
    assert yard.world.places == {}


async def _given_back(yard: Yard, uid: str) -> Job:
    subscription = yard.ledger.subscribe(f"job:{uid}")
    while True:
        job = await yard.ledger.get_job(uid)
        assert job is not None
        if job.unseen_tries:
            subscription.close()
            return job
        await subscription.wait(0.2)


async def test_a_running_attempt_is_followed_although_its_secret_was_deleted_meanwhile(
    yard: Yard, vault: Vault
) -> None:
    yard.start_owner(hand_out=vault)
    uid = await yard.submit(secrets=USES)
    await yard.reaches(uid, JobState.RUNNING)
    await yard.stop_owners()
    vault.problem = NotFound("tenant 'default' has no secret 'TOKEN'")
    yard.start_owner("service-1", hand_out=vault)
    yard.world.end(AttemptKey(uid, 1), succeeded())
    assert (await yard.reaches(uid, JobState.SUCCEEDED)).attempts == 1


async def test_what_a_place_says_of_an_end_or_of_itself_is_masked(yard: Yard, vault: Vault, capsys) -> None:
    quoting = f"env TOKEN={VALUE.decode()} was not taken"
    provider = ScriptedProvider(yard.world)
    provider.run_errors = [Unreachable(quoting), ValueError(quoting)]
    yard.start_owner(provider=provider, hand_out=vault)
    uid = await yard.submit(secrets=USES)
    reason = Reason(code=ReasonCode.EXIT, message=quoting)
    yard.world.end(await yard.place_of(uid), Outcome(kind=OutcomeKind.FAILED, exit_code=1, reason=reason))
    job = await yard.reaches(uid, JobState.FAILED)
    assert job.reason is not None
    assert job.reason.message == "env TOKEN=*** was not taken"
    told = capsys.readouterr()
    assert "provider_failed" in told.out + told.err
    assert VALUE.decode() not in told.out + told.err


async def test_the_words_of_a_refusal_are_masked(yard: Yard, vault: Vault) -> None:
    provider = ScriptedProvider(yard.world)
    provider.run_errors = [NoCapacity(f"no room for {VALUE.decode()}")] * 20
    yard.start_owner(provider=provider, hand_out=vault)
    uid = await yard.submit(secrets=USES)
    job = await _given_back(yard, uid)
    assert job.reason is not None
    assert "no room for ***" in job.reason.message
