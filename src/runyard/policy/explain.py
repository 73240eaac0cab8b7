"""Why a job waits, in the closed list of words, from the same values that decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runyard.model.pool import (
    AvailabilityKind,
    ClassAvailability,
    Pool,
    PoolHealth,
    WaitCode,
)
from runyard.model.requirements import Requirements
from runyard.model.waiting import WaitFacts, WaitReason
from runyard.policy.placement import misfit, serves


def could_ever_run(
    requirements: Requirements, queue_name: str, pools: Iterable[Pool]
) -> tuple[str, ...] | None:
    """None when some pool could take this class; else one sentence per pool that says why it could not."""
    sentences = []
    for pool in pools:
        if not serves(pool.settings, queue_name):
            sentences.append(f"pool '{pool.settings.name}' does not serve queue '{queue_name}'")
            continue
        reason = misfit(requirements, pool.settings)
        if reason is None:
            return None
        sentences.append(reason)
    return tuple(sentences) or ("there is no pool yet",)


def explain(facts: WaitFacts) -> tuple[WaitReason, ...]:
    """Why the job waits: first what holds whatever the pool, then one reason per pool that serves its queue."""
    general = tuple(_general_reasons(facts))
    serving = [pool for pool in facts.pools if serves(pool.settings, facts.job.queue)]
    if not serving:
        nobody = WaitReason(
            code=WaitCode.NO_POOL,
            message=f"no pool serves queue '{facts.job.queue}'; an operator must add one",
            since=facts.job.queued_at,
        )
        return (*general, nobody)
    ahead = place_in_order(facts)
    answers = {answer.pool: answer for answer in facts.availability}
    by_pool = tuple(_pool_reason(facts, pool, answers.get(pool.settings.name), ahead) for pool in serving)
    return general + by_pool


def place_in_order(facts: WaitFacts) -> int:
    """About how many jobs of the queue go before this one.

    Its own tenant's jobs that go first, and of each other tenant as many as its weight gives it until this job's turn
    comes, at most what it has queued; all jobs taken to cost the same, since nobody knows what they will.
    """
    mine = next((share for share in facts.shares if share.tenant == facts.job.tenant), None)
    if mine is None:
        return facts.ahead_in_tenant
    cost = 1.0
    my_turn_at = mine.virtual_time + cost * facts.ahead_in_tenant / mine.weight
    others = 0
    for share in facts.shares:
        if share.tenant != mine.tenant and share.virtual_time <= my_turn_at:
            turns = int((my_turn_at - share.virtual_time) * share.weight / cost) + 1
            others += min(turns, share.queued)
    return facts.ahead_in_tenant + others


def _general_reasons(facts: WaitFacts) -> Iterator[WaitReason]:
    job, queue, tenant = facts.job, facts.queue.settings, facts.tenant
    if job.not_before is not None and job.not_before > facts.now:
        cause = f": {job.reason.message}" if job.reason else ""
        yield WaitReason(
            code=WaitCode.RETRY_BACKOFF,
            message=f"waits before attempt {job.attempts + 1}{cause}",
            since=job.queued_at,
            eta_s=job.not_before - facts.now,
        )
    if queue.is_paused:
        yield WaitReason(code=WaitCode.QUEUE_PAUSED, message=f"queue '{queue.name}' is paused by an operator")
    busy = facts.queue.starting + facts.queue.running
    if queue.running_max is not None and busy >= queue.running_max:
        yield WaitReason(
            code=WaitCode.QUEUE_LIMIT,
            message=f"queue '{queue.name}' runs {busy} of at most {queue.running_max} at a time",
        )
    if tenant.settings.running_max is not None and tenant.running >= tenant.settings.running_max:
        yield WaitReason(
            code=WaitCode.TENANT_LIMIT,
            message=f"tenant '{job.tenant}' runs {tenant.running} of at most {tenant.settings.running_max} at a time",
        )
    elif queue.tenant_running_max is not None and facts.tenant_running_in_queue >= queue.tenant_running_max:
        yield WaitReason(
            code=WaitCode.TENANT_LIMIT,
            message=f"tenant '{job.tenant}' runs {facts.tenant_running_in_queue} of at most "
            f"{queue.tenant_running_max} at a time in queue '{queue.name}'",
        )


def _pool_reason(facts: WaitFacts, pool: Pool, answer: ClassAvailability | None, ahead: int) -> WaitReason:
    """The first of: it never fits, it is paused, it has no owner, it is ill, what its owner last said, the order."""
    name = pool.settings.name
    reason = misfit(facts.job.spec.requirements, pool.settings)
    if reason is not None:
        return WaitReason(code=WaitCode.NO_POOL, message=reason, pool=name)
    if pool.is_paused:
        return WaitReason(
            code=WaitCode.POOL_PAUSED, message=f"pool '{name}' is paused by an operator", pool=name
        )
    if pool.health is PoolHealth.UNOWNED or pool.owner is None:
        message = f"no running service acts for pool '{name}'; start `runyard serve` on its host"
        return WaitReason(code=WaitCode.NO_OWNER, message=message, pool=name, since=pool.lease_until)
    if pool.health is PoolHealth.UNHEALTHY:
        message = f"pool '{name}' is unhealthy: {pool.health_message}"
        return WaitReason(code=WaitCode.POOL_UNHEALTHY, message=message, pool=name)
    if answer is not None and answer.availability.kind is not AvailabilityKind.NOW:
        said = answer.availability
        return WaitReason(
            code=said.code or WaitCode.POOL_FULL,
            message=said.why,
            pool=name,
            since=answer.since,
            stated_at=answer.stated_at,
            eta_s=said.eta_s,
            ahead=ahead or None,
        )
    message = f"{ahead} jobs go first" if ahead else f"next in line for pool '{name}'"
    return WaitReason(
        code=WaitCode.BEHIND_OTHERS, message=message, pool=name, since=facts.job.queued_at, ahead=ahead
    )
