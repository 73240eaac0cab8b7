import asyncio
from dataclasses import replace

import pytest

from runyard.model.errors import Conflict, Invalid, NotFound
from runyard.model.queue import QueueSettings, TenantSettings
from runyard.model.token import Scope, Token, TokenKind
from tests.contracts.ledger.world import World


async def test_the_default_queue_is_there_from_the_start_and_stays(world: World):
    [queue] = await world.ledger.list_queues()
    assert queue.settings == QueueSettings(name="default")
    with pytest.raises(Conflict):
        await world.ledger.delete_queue("default")


async def test_a_queue_comes_back_as_it_was_put(world: World):
    settings = QueueSettings(
        name="q",
        weight=2.5,
        running_max=1,
        queued_max=2,
        tenant_running_max=3,
        defaults={"retry": {"failure": 1}},
    )
    assert (await world.ledger.put_queue(settings)).settings == settings
    changed = QueueSettings(name="q", is_paused=True, is_configured=True)
    assert (await world.ledger.put_queue(changed)).settings == changed
    found = await world.ledger.get_queue("q")
    assert found is not None
    assert found.settings == changed
    assert await world.ledger.get_queue("nowhere") is None


async def test_a_queue_knows_since_when_its_oldest_job_waits(world: World):
    await world.submit()
    first = world.clock.now()
    world.clock.advance(5)
    await world.submit()
    assert (await world.ledger.list_queues())[0].oldest_queued_at == first
    await world.claim()
    assert (await world.ledger.list_queues())[0].oldest_queued_at == first + 5
    await world.claim()
    assert (await world.ledger.list_queues())[0].oldest_queued_at is None


async def test_a_queue_with_unfinished_jobs_is_not_deleted(world: World):
    await world.ledger.put_queue(QueueSettings(name="q"))
    job = await world.submit(queue="q")
    with pytest.raises(Conflict):
        await world.ledger.delete_queue("q")
    [claimed] = await world.claim()
    with pytest.raises(Conflict):
        await world.ledger.delete_queue("q")
    await world.settle(claimed)
    await world.ledger.delete_queue("q")
    assert (await world.job(job.uid)).queue == "q"
    with pytest.raises(NotFound):
        await world.ledger.delete_queue("q")


async def test_a_tenant_can_be_set_before_its_first_job(world: World):
    settings = TenantSettings(name="acme", weight=3.0, running_max=4, queued_max=5, is_configured=True)
    assert (await world.ledger.put_tenant(settings)).settings == settings
    await world.submit(tenant="acme")
    tenant = await world.ledger.get_tenant("acme")
    assert tenant is not None
    assert (tenant.settings, tenant.queued) == (settings, 1)
    assert [one.settings.name for one in await world.ledger.list_tenants()] == ["acme"]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
async def test_a_weight_that_cannot_be_divided_by_is_refused(world: World, weight: float):
    with pytest.raises(Invalid):
        await world.ledger.put_queue(QueueSettings(name="q", weight=weight))
    with pytest.raises(Invalid):
        await world.ledger.put_tenant(TenantSettings(name="t", weight=weight))


async def test_tokens_are_found_by_the_hash_of_their_secret(world: World):
    token = Token(id="1", name="ci", secret_hash="h", scope=Scope.SUBMIT, tenants=("a", "b"), created_at=1.0)
    admin = Token(
        id="2", name="me", secret_hash="k", scope=Scope.ADMIN, tenants=None, created_at=2.0, expires_at=9.0
    )
    await world.ledger.put_token(token)
    await world.ledger.put_token(admin)
    assert await world.ledger.find_token("h") == token
    assert await world.ledger.find_token("other") is None
    assert await world.ledger.list_tokens() == [token, admin]
    assert await world.ledger.delete_token("1")
    assert not await world.ledger.delete_token("1")
    assert await world.ledger.find_token("h") is None


def _a_token(id_: str, **changes: object) -> Token:
    token = Token(id=id_, name=id_, secret_hash=f"h-{id_}", scope=Scope.ADMIN, tenants=None, created_at=1.0)
    return replace(token, **changes)


async def test_revoking_a_token_ends_the_sessions_made_from_it(world: World):
    await world.ledger.put_token(_a_token("mine"))
    await world.ledger.put_token(_a_token("other"))
    await world.ledger.put_token(_a_token("page", kind=TokenKind.SESSION, parent="mine"))
    await world.ledger.put_token(_a_token("kept", kind=TokenKind.SESSION, parent="other"))
    assert await world.ledger.delete_token("mine")
    assert await world.ledger.find_token("h-page") is None
    assert (await world.ledger.list_tokens()) == [
        _a_token("kept", kind=TokenKind.SESSION, parent="other"),
        _a_token("other"),
    ]


async def test_of_many_who_use_a_link_at_once_one_has_it(world: World):
    await world.ledger.put_token(_a_token("link", kind=TokenKind.LINK))
    answers = await asyncio.gather(*(world.ledger.delete_token("link") for _ in range(8)))
    assert sorted(answers) == [False] * 7 + [True]


async def test_expired_sessions_go_and_expired_tokens_stay(world: World):
    for id_, kind, expires_at in (
        ("old-page", TokenKind.SESSION, 5.0),
        ("page", TokenKind.SESSION, 15.0),
        ("old-token", TokenKind.TOKEN, 5.0),
        ("endless", TokenKind.TOKEN, None),
    ):
        await world.ledger.put_token(_a_token(id_, kind=kind, expires_at=expires_at))
    assert await world.ledger.delete_expired_sessions(before=10.0, limit=100) == 1
    assert {token.id for token in await world.ledger.list_tokens()} == {"page", "old-token", "endless"}
