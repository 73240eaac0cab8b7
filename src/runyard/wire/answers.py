"""What the API answers. Times are RFC 3339 in UTC; a key that is unknown is null, never left out."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

JobStateWord = Literal[
    "queued",
    "starting",
    "running",
    "canceling",
    "succeeded",
    "failed",
    "canceled",
    "timed_out",
    "lost",
    "refused",
]
FINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "timed_out", "lost", "refused"})


class Answer(BaseModel):
    """Readers ignore keys they do not know, so that an older client reads a newer service."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ErrorBody(Answer):
    """`field` is a dotted path into what was sent; `more` holds the further problems of the same document."""

    code: str
    message: str
    field: str | None = None
    cure: str | None = None
    more: list[ErrorBody] = []


class ErrorAnswer(Answer):
    error: ErrorBody


class ReasonAnswer(Answer):
    code: str
    message: str
    step: str | None = None


class UsageAnswer(Answer):
    wall_s: float
    cpu_s: float | None = None
    memory_bytes_peak: int | None = None


class ProgressAnswer(Answer):
    """What an attempt that does not run yet is busy with. `fraction` is from 0 to 1."""

    text: str
    at: datetime
    fraction: float | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None


class AttemptAnswer(Answer):
    """`placement` is where it runs and what (`machine`, `node`, `image` by its digest, …), as far as its pool told."""

    name: str
    number: int
    pool: str
    slot: int
    state: str
    claimed_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    phases: dict[str, datetime] = {}
    exit_code: int | None = None
    signal: int | None = None
    outcome: str | None = None
    reason: ReasonAnswer | None = None
    usage: UsageAnswer | None = None
    placement: dict[str, str] = {}
    progress: ProgressAnswer | None = None


class JobAnswer(Answer):
    """`effective` is the job document with all defaults filled in, `attempts` are oldest first. `warnings` come
    with the answer to a submit: the job was taken, but something about it is odd. Listings leave these three out."""

    id: str
    uid: str
    name: str | None = None
    tenant: str
    queue: str
    state: JobStateWord
    priority: int = 0
    labels: dict[str, str] = {}
    effective: dict[str, Any] = {}
    attempts: list[AttemptAnswer] = []
    attempt_count: int = 0
    exit_code: int | None = None
    reason: ReasonAnswer | None = None
    outputs: dict[str, str] = {}
    retry_of: str | None = None
    submitted_at: datetime
    submitted_by: str = ""
    queued_at: datetime
    not_before: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    warnings: list[str] = []

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES


class JobPage(Answer):
    jobs: list[JobAnswer]
    next: str | None = None


class BatchItem(Answer):
    """Exactly one of the two."""

    id: str | None = None
    error: ErrorBody | None = None


class BatchAnswer(Answer):
    jobs: list[BatchItem]


class WaitReasonAnswer(Answer):
    """`since` is from when on it waits for this, `age_s` how long that is; both null where nobody wrote it down.
    `stated_at` is when the pool's owner last said so; null for what follows from the ledger at this moment."""

    code: str
    message: str
    pool: str | None = None
    since: datetime | None = None
    age_s: float | None = None
    stated_at: datetime | None = None
    eta_s: float | None = None
    ahead: int | None = None


class WhyAnswer(Answer):
    """Why a job waits: the reasons that hold for all pools first, then pool by pool. `ahead` is its place in the fair
    order: about how many jobs go first. For a job that does not wait, `reasons` is empty and `state` says all."""

    id: str
    tenant: str
    queue: str
    state: JobStateWord
    class_key: str
    ahead: int | None = None
    reasons: list[WaitReasonAnswer] = []


class ArtifactAnswer(Answer):
    path: str
    size: int
    attempt: int


class ArtifactList(Answer):
    artifacts: list[ArtifactAnswer]


class QueueAnswer(Answer):
    name: str
    weight: float
    running_max: int | None = None
    queued_max: int | None = None
    tenant_running_max: int | None = None
    defaults: dict[str, Any] = {}
    paused: bool
    configured: bool
    queued: int
    starting: int
    running: int
    oldest_queued_at: datetime | None = None


class QueueList(Answer):
    queues: list[QueueAnswer]


class TenantAnswer(Answer):
    name: str
    weight: float
    running_max: int | None = None
    queued_max: int | None = None
    configured: bool
    queued: int
    running: int


class TenantList(Answer):
    tenants: list[TenantAnswer]


class PoolAnswer(Answer):
    name: str
    provider: str
    isolation: str
    description: str
    queues: list[str]
    labels: dict[str, str] = {}
    slots: int
    cpu: float
    memory: int
    disk: int | None = None
    running: int
    starting: int
    idle: int
    draining: int = 0
    paused: bool
    health: str
    health_message: str = ""
    owner: str | None = None
    epoch: int = 0
    lease_until: datetime | None = None


class PoolList(Answer):
    pools: list[PoolAnswer]


class MachineAnswer(Answer):
    """`held` counts the unsettled attempts that are bound to it; `fenced_at`: since when it is condemned;
    `drain_asked_at`: since when an operator wants it to take nothing new and to end once it holds nothing."""

    name: str
    pool: str
    state: str
    slots: int = 0
    held: int = 0
    since: datetime | None = None
    contact_at: datetime | None = None
    fenced_at: datetime | None = None
    drain_asked_at: datetime | None = None
    facts: dict[str, str] = {}


class MachineList(Answer):
    machines: list[MachineAnswer]


class OperationAnswer(Answer):
    id: str
    pool: str
    kind: str
    requested_at: datetime
    finished_at: datetime | None = None
    result: dict[str, Any] | None = None


class TokenAnswer(Answer):
    """`token` is the secret itself, shown once, when it is made. `kind`: a token, a session of the pages, or a link
    that signs in once."""

    id: str
    name: str
    scope: str
    kind: str = "token"
    tenants: list[str] | None = None
    created_at: datetime
    expires_at: datetime | None = None
    token: str | None = None


class TokenList(Answer):
    tokens: list[TokenAnswer]


class SecretAnswer(Answer):
    """All that is told of a secret; its value is told to nobody. `queues` null is all; `last_used_by` is an attempt's
    name; `readable` is whether the service has the key that sealed it, `key_id`."""

    name: str
    tenant: str
    queues: list[str] | None = None
    created_at: datetime
    changed_at: datetime
    changed_by: str
    last_used_at: datetime | None = None
    last_used_by: str | None = None
    key_id: str
    readable: bool


class SecretList(Answer):
    secrets: list[SecretAnswer]


class RotationAnswer(Answer):
    """`resealed` secrets are sealed by `key_id` now; `unreadable` counts those of keys that are not here, by key."""

    key_id: str
    resealed: int
    unreadable: dict[str, int] = {}


class EventAnswer(Answer):
    """One state change, the `data` of a server-sent event whose `id` is the cursor to go on from."""

    sequence: int
    at: datetime
    tenant: str
    queue: str
    job: str
    uid: str
    state: JobStateWord
    attempt: int
    reason: ReasonAnswer | None = None


class LogChunkEvent(Answer):
    """Bytes of one stream as they arrive; `data` is base64. Each attempt's streams begin at 0 again."""

    attempt: int = 0
    step: str
    stream: Literal["stdout", "stderr"]
    offset: int
    data: str


class LogGapEvent(Answer):
    """Bytes that are not there: `cut` by the log's bound, or lost (`gap`). `to` is the offset the stream goes on at."""

    attempt: int = 0
    step: str
    stream: Literal["stdout", "stderr"]
    offset: int
    to: int


class LogEndEvent(Answer):
    state: JobStateWord
    exit_code: int | None = None
    signal: int | None = None


class HealthAnswer(Answer):
    status: Literal["ok", "ready"]


class AuditAnswer(Answer):
    sequence: int
    at: datetime
    actor: str
    actor_id: str
    origin: str
    action: str
    subject: str
    details: dict[str, str]


class AuditPage(Answer):
    """Newest first; `next` is what `before` goes on with."""

    lines: list[AuditAnswer]
    next: int | None


class LinkAnswer(Answer):
    """`path` is put behind the service's address; `expires_in` is in seconds."""

    path: str
    expires_in: float
