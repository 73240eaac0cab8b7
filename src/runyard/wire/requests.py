"""What clients send besides jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, model_validator

from runyard.wire.job_document import Document, JobId, Name, ShortText
from runyard.wire.units import Duration

SECRET_BYTES_MAX = 64 * 1024

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


class SecretPut(Document):
    """The value as text, or any bytes as base64. `queues` null lets the jobs of every queue use it."""

    value: Annotated[SecretStr, Field(max_length=SECRET_BYTES_MAX)] | None = None
    base64: Annotated[SecretStr, Field(max_length=SECRET_BYTES_MAX * 4 // 3 + 4)] | None = None
    queues: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _one_value(self) -> SecretPut:
        if (self.value is None) == (self.base64 is None):
            raise ValueError("a secret has either `value` (text) or `base64`; write one of the two")
        return self
