"""Why a job waits, in the closed list of words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runyard.model.outcome import Reason, ReasonCode
from runyard.model.pool import ClassAvailability, PoolHealth, WaitCode, soon
from runyard.model.queue import Queue, QueueSettings, Tenant, TenantSettings
from runyard.model.requirements import Isolation
from runyard.model.waiting import TenantShare, WaitFacts
from runyard.policy.explain import could_ever_run, explain, place_in_order
from tests.factories import a_job, a_pool, a_pool_settings, a_requirements, a_spec, wait_facts


def codes(facts: WaitFacts) -> list[WaitCode]:
    return [reason.code for reason in explain(facts)]


def test_a_job_that_is_next_says_so() -> None:
    (reason,) = explain(wait_facts())
    assert reason.code is WaitCode.BEHIND_OTHERS
    assert reason.message == "next in line for pool 'local'"
    assert reason.ahead == 0


def test_a_paused_queue_is_named_before_the_pools() -> None:
    queue = Queue(settings=QueueSettings(name="default", is_paused=True), queued=1)
    assert codes(wait_facts(queue=queue))[0] is WaitCode.QUEUE_PAUSED


def test_the_limits_of_queue_and_tenant_are_told_with_their_numbers() -> None:
    queue = Queue(settings=QueueSettings(name="default", running_max=2), running=2)
    tenant = Tenant(settings=TenantSettings(name="default", running_max=1), running=1)
    reasons = explain(wait_facts(queue=queue, tenant=tenant))
    assert [reason.code for reason in reasons[:2]] == [WaitCode.QUEUE_LIMIT, WaitCode.TENANT_LIMIT]
    assert "2 of at most 2" in reasons[0].message


def test_a_backoff_tells_when_it_ends_and_what_happened() -> None:
    reason = Reason(code=ReasonCode.HOST_LOST, message="host died")
    first = explain(wait_facts(job=a_job(not_before=230.0, reason=reason, attempts=1)))[0]
    assert first.code is WaitCode.RETRY_BACKOFF
    assert first.eta_s == 30.0
    assert first.message == "waits before attempt 2: host died"


def test_without_a_serving_pool_the_job_is_told_so() -> None:
    pools = (a_pool(a_pool_settings(queues=("other",))),)
    assert codes(wait_facts(pools=pools)) == [WaitCode.NO_POOL]


def test_each_pool_answers_for_itself() -> None:
    pools = (
        a_pool(a_pool_settings(name="paused"), is_paused=True),
        a_pool(a_pool_settings(name="orphan"), owner=None, health=PoolHealth.UNOWNED),
        a_pool(a_pool_settings(name="ill"), health=PoolHealth.UNHEALTHY, health_message="disk full"),
        a_pool(a_pool_settings(name="weak", isolation=Isolation.NONE)),
        a_pool(a_pool_settings(name="full")),
    )
    said = ClassAvailability(
        pool="full",
        class_key="c",
        availability=soon(WaitCode.POOL_FULL, "all 4 slots are in use"),
        since=150.0,
        stated_at=199.0,
    )
    reasons = explain(wait_facts(pools=pools, availability=(said,)))
    assert [(reason.pool, reason.code) for reason in reasons] == [
        ("paused", WaitCode.POOL_PAUSED),
        ("orphan", WaitCode.NO_OWNER),
        ("ill", WaitCode.POOL_UNHEALTHY),
        ("weak", WaitCode.NO_POOL),
        ("full", WaitCode.POOL_FULL),
    ]
    assert reasons[-1].since == 150.0


def test_the_place_counts_own_jobs_and_the_turns_of_others() -> None:
    shares = (
        TenantShare(tenant="default", weight=1.0, virtual_time=0.0, queued=5),
        TenantShare(tenant="heavy", weight=2.0, virtual_time=0.0, queued=100),
        TenantShare(tenant="small", weight=1.0, virtual_time=0.0, queued=1),
    )
    assert place_in_order(wait_facts(ahead_in_tenant=3, shares=shares)) == 3 + 7 + 1


@given(
    ahead=st.integers(0, 1000),
    others=st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 1e6), st.integers(0, 10_000)), max_size=10),
)
def test_the_place_is_never_less_than_the_own_jobs_nor_more_than_all(
    ahead: int, others: list[tuple[float, float, int]]
) -> None:
    shares = (
        TenantShare(tenant="default", weight=1.0, virtual_time=0.0, queued=ahead + 1),
        *(
            TenantShare(tenant=f"t{index}", weight=weight, virtual_time=virtual, queued=queued)
            for index, (weight, virtual, queued) in enumerate(others)
        ),
    )
    place = place_in_order(wait_facts(ahead_in_tenant=ahead, shares=shares))
    assert ahead <= place <= ahead + sum(share.queued for share in shares[1:])


def test_a_job_that_no_pool_could_ever_run_is_told_why_for_each() -> None:
    needs = a_spec(requirements=a_requirements(cpu_millis=64_000)).requirements
    pools = (a_pool(), a_pool(a_pool_settings(name="other", queues=("gpu",))))
    sentences = could_ever_run(needs, "default", pools)
    assert sentences is not None
    assert len(sentences) == 2
    assert "the job demands 64" in sentences[0]
    assert could_ever_run(a_requirements(), "default", pools) is None
    assert could_ever_run(a_requirements(), "default", ()) == ("there is no pool yet",)
