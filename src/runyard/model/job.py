"""A job: the work that was asked for, all defaults filled in, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runyard.model.outcome import Reason
from runyard.model.requirements import Requirements
from runyard.model.secret import SecretUse


class JobState(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    REFUSED = "refused"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES

    @property
    def is_claimed(self) -> bool:
        """An attempt of it is with a pool."""
        return self in (JobState.STARTING, JobState.RUNNING, JobState.CANCELING)


FINAL_STATES = frozenset(
    {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELED,
        JobState.TIMED_OUT,
        JobState.LOST,
        JobState.REFUSED,
    }
)


class StepCondition(StrEnum):
    """When a step runs: only while all before it succeeded, only after one failed, or in any case."""

    SUCCESS = "success"
    FAILURE = "failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command. `command` is the whole argument vector; `dir` is relative to the workspace or absolute inside;
    `image` is the one it runs in, None for the pool's own system; `secrets` are for it alone, beside the job's."""

    name: str
    command: tuple[str, ...]
    dir: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    condition: StepCondition = StepCondition.SUCCESS
    image: str | None = None
    secrets: tuple[SecretUse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """A repository to check out into the workspace. `ref` is a branch, tag or commit; None is the remote's HEAD.
    `sparse` are folders, with none the whole tree; `lfs` fetches large files instead of leaving their pointers."""

    url: str
    ref: str | None = None
    depth: int | None = None
    fetch_tags: bool = False
    sparse: tuple[str, ...] = ()
    submodules: bool = False
    lfs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file to write into the workspace: `content_base64` is its bytes, or they are at `url`, with that `sha256`."""

    path: str
    content_base64: str = ""
    url: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    git: GitSource | None = None
    files: tuple[FileSource, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCache:
    """A folder kept between jobs of a tenant and queue: beneath the workspace, or beneath HOME where `path` begins with
    `~/`. `restore` are prefixes to look for where `key` is not there."""

    key: str
    path: str
    restore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds. `queue_s`: waiting, from submit to the first claim (None: for ever); `start_s`: from a claim to the
    first step; `run_s`: from the first step to the end of the last."""

    queue_s: float | None = None
    start_s: float = 600.0
    run_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How many more attempts a job gets after a lost one (`infrastructure`) and after a failed one (`failure`)."""

    infrastructure: int = 3
    failure: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A program beside the steps, in an image, which they reach by its `name`. `command` replaces the image's CMD,
    its ENTRYPOINT stays; () is as the image has it. It is ready once `ready_port` accepts, or `ready_command`
    succeeds in a fresh root of its image; with neither, once the TCP ports that the image exposes accept.
    `memory_bytes` and `cpu_millis` bound it within what the job has; None: only by that."""

    name: str
    image: str
    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    ready_port: int | None = None
    ready_command: tuple[str, ...] = ()
    ready_timeout_s: float = 60.0
    memory_bytes: int | None = None
    cpu_millis: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What was asked for, with every default filled in. `image` is that of steps which name none. `outputs` maps a name
    to a file relative to the workspace. `network_allow` are the entries (model/egress.py) of a job whose requirements
    say network `allow`."""

    steps: tuple[Step, ...]
    name: str | None = None
    queue: str = "default"
    tenant: str = "default"
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    dir: str | None = None
    image: str | None = None
    workspace: Workspace = field(default_factory=Workspace)
    requirements: Requirements = field(default_factory=Requirements)
    limits: Limits = field(default_factory=Limits)
    retry: Retry = field(default_factory=Retry)
    artifacts: tuple[str, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    cache: tuple[NamedCache, ...] = ()
    secrets: tuple[SecretUse, ...] = ()
    network_allow: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()

    def image_of(self, step: Step) -> str | None:
        """The image that a step runs in; None is the pool's own system."""
        return step.image if step.image is not None else self.image

    @property
    def has_secrets(self) -> bool:
        return bool(self.secrets) or any(step.secrets for step in self.steps)

    @property
    def images(self) -> tuple[str, ...]:
        """Every image that a step runs in or a service is, once: the steps' in their order, then the services'."""
        named = [self.image_of(step) for step in self.steps] + [service.image for service in self.services]
        return tuple(dict.fromkeys(image for image in named if image is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job on its way into the ledger. `uid` is its random 16-character name, `spec_hash` the SHA-256 of the document
    as the user sent it (canonical JSON, before defaults), by which a repeated PUT is recognised."""

    uid: str
    id: str
    spec: JobSpec
    spec_hash: str
    submitted_by: str = ""
    retry_of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the ledger holds it. Times are seconds since the epoch, UTC.

    `queued_at` is the latest time it became queued; `not_before` holds a retry back; `attempts` counts all claims,
    `infrastructure_failures` and `failures` those that cost one of the user's retries, `unseen_tries` those that never
    started; `reason` is why it ended as it did, or why the latest attempt did not count.
    """

    uid: str
    id: str
    spec: JobSpec
    spec_hash: str
    state: JobState
    submitted_at: float
    queued_at: float
    submitted_by: str = ""
    retry_of: str | None = None
    not_before: float | None = None
    queue_deadline_at: float | None = None
    cancel_requested_at: float | None = None
    attempts: int = 0
    infrastructure_failures: int = 0
    failures: int = 0
    unseen_tries: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    reason: Reason | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> str:
        return self.spec.tenant

    @property
    def queue(self) -> str:
        return self.spec.queue
