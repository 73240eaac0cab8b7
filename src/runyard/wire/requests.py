"""What clients send besides jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from runyard.wire.job_document import Document, JobId, Name, ShortText
from runyard.wire.units import Duration

Weight = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Bound = Annotated[int, Field(ge=0, le=1_000_000_000)]


class QueuePut(Document):
    """Null is no bound. `defaults` is a part of a job document, merged under each job of the queue."""

    weight: Weight = 1.0
    running_max: Bound | None = None
    queued_max: Bound | None = None
    tenant_running_max: Bound | None = None
    defaults: dict[str, Any] = Field(default_factory=dict)


class TenantPut(Document):
    weight: Weight = 1.0
    running_max: Bound | None = None
    queued_max: Bound | None = None


class TokenPost(Document):
    """`tenants` null gives all of them; `expires_in` null never expires."""

    name: ShortText
    scope: Literal["read", "submit", "operate", "admin"]
    tenants: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = None
    expires_in: Duration | None = None


class RetryPost(Document):
    """The body may be left out; `id` names the new job, so that a repeated request makes no second one."""

    id: JobId | None = None
