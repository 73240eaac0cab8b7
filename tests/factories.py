"""Valid values by default; a test names only what it is about."""

from __future__ import annotations

from typing import Any

from runyard.model.job import Job, JobSpec, JobState, NewJob, Step
from runyard.model.pool import Budget, Pool, PoolHealth, PoolSettings
from runyard.model.queue import Queue, QueueSettings, Tenant, TenantSettings
from runyard.model.requirements import Isolation, Requirements
from runyard.model.waiting import TenantShare, WaitFacts

GIB = 1 << 30


def a_requirements(**changes: Any) -> Requirements:
    return Requirements(**{"cpu_millis": 1000, "memory_bytes": GIB, **changes})


def a_spec(**changes: Any) -> JobSpec:
    return JobSpec(**{"steps": (Step(name="step-1", command=("true",)),), **changes})


def a_new_job(number: int = 1, **changes: Any) -> NewJob:
    uid = f"u{number:015d}"
    return NewJob(
        **{"uid": uid, "id": f"job-{number}", "spec": a_spec(), "spec_hash": f"hash-{number}", **changes}
    )


def a_job(**changes: Any) -> Job:
    values = {
        "uid": "a" * 16,
        "id": "build-1",
        "spec": a_spec(),
        "spec_hash": "0" * 64,
        "state": JobState.QUEUED,
        "submitted_at": 100.0,
        "queued_at": 100.0,
    }
    return Job(**{**values, **changes})


def a_pool_settings(**changes: Any) -> PoolSettings:
    values = {
        "name": "local",
        "provider": "local",
        "slots": 4,
        "budget": Budget(cpu_millis=4000, memory_bytes=8 * GIB),
        "isolation": Isolation.CONTAINER,
    }
    return PoolSettings(**{**values, **changes})


def a_pool(settings: PoolSettings | None = None, **changes: Any) -> Pool:
    values = {
        "settings": settings or a_pool_settings(),
        "epoch": 1,
        "owner": "service-1",
        "health": PoolHealth.HEALTHY,
    }
    return Pool(**{**values, **changes})


def wait_facts(**changes: Any) -> WaitFacts:
    job = changes.get("job", a_job())
    values = {
        "now": 200.0,
        "job": job,
        "queue": Queue(settings=QueueSettings(name=job.queue), queued=1),
        "tenant": Tenant(settings=TenantSettings(name=job.tenant), queued=1),
        "tenant_running_in_queue": 0,
        "pools": (a_pool(),),
        "availability": (),
        "ahead_in_tenant": 0,
        "shares": (TenantShare(tenant=job.tenant, weight=1.0, virtual_time=0.0, queued=1),),
    }
    return WaitFacts(**{**values, **changes})
