"""The provider port: what Runyard asks of every kind of place, and all that a provider may know of Runyard.

Four verbs carry the work (`can_dequeue`, `run_job`, `handle_queue_size`, `prune_unknown_resources`); `stop_job` ends
an attempt, and `list_resources` / `destroy_resource` are the two small ones that the sweep is built from. Each call is
short or cancellable. Each fails with a ProviderError of model/errors.py and nothing else. Missing is success for
`destroy_resource` and for `stop_job`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runyard.model.attempt import AttemptKey
from runyard.model.finding import Finding
from runyard.model.job import JobSpec
from runyard.model.outcome import Outcome
from runyard.model.pool import Availability, Budget, Demand, Supply
from runyard.model.requirements import Isolation, Requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """How one provider differs from another, as a value. `can_lose_log_lines`: gaps are then marked in the log;
    `is_host_bound`: only the process on its own host can act for it; `labels` include `arch` and `os` where all its
    places share them; `description` says in plain words what isolates."""

    isolation: Isolation
    is_host_bound: bool = False
    has_network_open: bool = True
    can_lose_log_lines: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShape:
    """What a started provider has to offer: slots, and the budget that attempts share."""

    slots: int
    budget: Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """What a provider is made from: `create_provider(config)` is the entry point's signature. `slots` None lets the
    provider choose; `options` are the pool's own keys in the config file, validated by the provider (Raises
    ConfigError naming key, value and cure); `data_directory` is its own folder, kept over restarts."""

    pool: str
    installation: str
    data_directory: Path
    slots: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRequest:
    """An attempt to be run: who it is, what it does, in which slot of the pool. `env` holds what Runyard adds to each
    step's environment (RUNYARD_JOB and its kin)."""

    key: AttemptKey
    job_id: str
    spec: JobSpec
    slot: int
    epoch: int
    env: Mapping[str, str] = field(default_factory=dict)


class RunContext(Protocol):
    """What a running attempt may use. Nothing here blocks for long, and all of it may be called again."""

    def may_create(self, within_s: float) -> bool:
        """Whether the owner's lease outlasts a call of `within_s` seconds. Asked right before each create: on False
        nothing is created and Unreachable is raised, for another may own the pool by then (DESIGN: every create ends
        within its owner's lease)."""
        ...

    @property
    def log_directory(self) -> Path:
        """Where a provider on this host writes the attempt's log files itself, as runyard.logs.layout says."""
        ...

    @property
    def log_bytes_max(self) -> int:
        """How much of the attempt's log is kept, over all its streams, head and tail together."""
        ...

    @property
    def artifact_directory(self) -> Path:
        """Where collected artifacts go, by their path relative to the workspace; made by the provider on need."""
        ...

    async def record_phase(self, name: str, at: float) -> None:
        """A phase began (epoch seconds). `running` is the first step's start and is recorded before it is shown;
        others: `preparing`, `workspace`, `cache`, `step:<name>`, `collecting`. Repeats change nothing."""
        ...

    async def record_outputs(self, outputs: Mapping[str, str]) -> None:
        """The job's named outputs (name -> text), settled together with the outcome."""
        ...


class Provider(Protocol):
    @property
    def capabilities(self) -> Capabilities:
        """Valid once started."""
        ...

    @property
    def shape(self) -> PoolShape:
        """Valid once started."""
        ...

    async def start(self) -> None:
        """Probes and connects. Raises IsolationUnavailable or a ProviderError with the cure."""
        ...

    async def close(self) -> None:
        """Lets go of everything it holds in this process. Attempts run on."""
        ...

    async def can_dequeue(self, requirements: Requirements) -> Availability:
        """Could the places take this class? Slots and budget are counted by dispatch: this is about the rest."""
        ...

    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        """Starts the attempt, or adopts it where it already runs or has ended: idempotent by `attempt.key`.

        Cancelling the coroutine means: stop following, leave it running. The provider enforces limits.start_s,
        limits.run_s and step time-outs and tells them apart in the outcome. Returns once nothing of the attempt is
        left running and its artifacts are collected; the resource itself stays until `destroy_resource`.
        """
        ...

    async def stop_job(self, key: AttemptKey, *, grace_s: float) -> None:
        """Asks it to end: TERM now, KILL after `grace_s`; `run_job` then returns a canceled outcome. An attempt that
        never started here is marked, so that a later `run_job` of it returns canceled and starts nothing."""
        ...

    async def handle_queue_size(self, demand: Demand) -> Supply: ...

    async def check(self) -> Sequence[Finding]:
        """Proves what the pool needs, each with its cure: rights, tools, one real start. Changes nothing for good."""
        ...

    async def list_resources(self) -> ResourceListing: ...

    async def destroy_resource(self, name: str) -> None:
        """Removes what was made for it, running or not. Missing is success."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Something that exists for us. `created_at` in epoch seconds; `is_running` None where unknown."""

    name: str
    created_at: float
    is_running: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceListing:
    """All resources of ours, of all kinds. Proves absence only where `is_complete` (I4)."""

    resources: tuple[Resource, ...]
    is_complete: bool
