"""Pools that nobody owns: a dead host's, or one that the config dropped."""

from __future__ import annotations

from typing import Any, cast

import pytest

from runyard.dispatch.caretaker import Caretaker
from runyard.ledger.port import Ledger
from runyard.model.errors import LedgerUnavailable
from runyard.model.job import JobState
from runyard.model.operation import OperationKind
from runyard.model.pool import Fence
from tests.dispatch.conftest import Yard
from tests.factories import a_pool_settings


def caretaker(yard: Yard, own: frozenset[str] = frozenset()) -> Caretaker:
    return Caretaker(ledger=yard.ledger, owner="service-9", own_pools=own)


async def test_the_attempts_of_a_forgotten_pool_are_lost_and_its_jobs_run_elsewhere(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    await yard.reaches(uid, JobState.RUNNING)
    await yard.stop_owners()
    await yard.ledger.request_operation("local", OperationKind.FORGET_POOL, {})
    await caretaker(yard).tick()
    job = await yard.reaches(uid, JobState.QUEUED)
    assert job.infrastructure_failures == 1
    assert await yard.ledger.get_pool("local") is None


async def test_a_pool_that_has_an_owner_answers_for_itself(yard: Yard) -> None:
    fence = await yard.ledger.acquire_pool("local", owner="service-1", lease_s=100)
    assert fence is not None
    asked = await yard.ledger.request_operation("local", OperationKind.FORGET_POOL, {})
    await caretaker(yard).tick()
    operation = await yard.ledger.get_operation(asked.id)
    assert operation is not None
    assert operation.result is None


async def test_what_only_an_owner_can_do_is_answered_with_the_cure(yard: Yard) -> None:
    await yard.ledger.put_pool(a_pool_settings(name="gone"))
    asked = await yard.ledger.request_operation("gone", OperationKind.CHECK_POOL, {})
    await caretaker(yard, frozenset({"local"})).tick()
    operation = await yard.ledger.get_operation(asked.id)
    assert operation is not None
    assert operation.result is not None
    assert operation.result["ok"] is False
    assert "runyard serve" in operation.result["cure"]
    assert await yard.ledger.get_pool("gone") is not None


class CannotRelease:
    """The ledger of a caretaker that is cut off before it lets a pool go."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def release_pool(self, fence: Fence) -> None:
        raise LedgerUnavailable("the ledger does not answer", cure="wait")


async def test_a_caretaker_that_cannot_let_go_keeps_a_pool_no_longer_than_the_configured_lease(
    yard: Yard,
) -> None:
    await yard.ledger.put_pool(a_pool_settings(name="gone"))
    await yard.ledger.request_operation("gone", OperationKind.CHECK_POOL, {})
    ledger = cast(Ledger, CannotRelease(yard.ledger))
    with pytest.raises(LedgerUnavailable):
        await Caretaker(ledger=ledger, owner="service-9", own_pools=frozenset(), lease_s=2.0).tick()
    pool = await yard.ledger.get_pool("gone")
    assert pool is not None
    assert pool.lease_until is not None
    assert pool.lease_until - await yard.ledger.now() <= 2.0
