"""The provider port: what Runyard asks of every kind of place, and all that a provider may know of Runyard.

Four verbs carry the work (`can_dequeue`, `run_job`, `handle_queue_size`, `prune_unknown_resources`); `stop_job` ends
an attempt, and `list_resources` / `destroy_resource` are the two small ones that the sweep is built from. Each call is
short or cancellable. Each fails with a ProviderError of model/errors.py and nothing else. Missing is success for
`destroy_resource` and for `stop_job`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runyard.model.attempt import AttemptKey
from runyard.model.finding import Finding
from runyard.model.job import JobSpec
from runyard.model.machine import Binding, Machine, MachineState
from runyard.model.outcome import Outcome
from runyard.model.pool import Availability, Budget, Demand, Supply
from runyard.model.requirements import Isolation, Requirements
from runyard.model.secret import SecretValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """How one provider differs from another, as a value. `can_lose_log_lines`: gaps are then marked in the log;
    `is_host_bound`: only the process on its own host can act for it; `has_network_allow`: what a job lists in
    `network.allow` is all that it reaches; `has_services`: a job's services run beside its steps; `labels` include
    `arch` and `os` where all its places share them; `description` says in plain words what isolates."""

    isolation: Isolation
    is_host_bound: bool = False
    has_network_open: bool = True
    has_network_allow: bool = False
    has_images: bool = False
    has_services: bool = False
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
    step's environment (RUNYARD_JOB and its kin). `secrets` are resolved right before each call of `run_job`: for each
    step those that `is_for` it, as model.secret.SecretValue says. They are this call's alone: keep them in memory."""

    key: AttemptKey
    job_id: str
    spec: JobSpec
    slot: int
    epoch: int
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[SecretValue, ...] = field(default=(), repr=False)


class LogSink(Protocol):
    """Where a provider whose places are far puts what an attempt printed; one on this host writes `log_directory`.
    `step` is a key of runyard.logs.layout (`000`, `setup`), `stream` is `stdout` or `stderr`."""

    async def append(self, step: str, stream: str, offset: int, data: bytes) -> None:
        """Stores `data` at `offset`. Repeating it changes nothing. Bytes left out before `offset` are marked as a gap
        for good. Raises Conflict where other bytes are stored there already: a job cannot take back what it printed.
        Raises Unreachable where they cannot be kept now."""
        ...

    async def size(self, step: str, stream: str) -> int:
        """The offset of the next byte to come, 0 where none came yet: from there whoever adopts an attempt goes on."""
        ...


class Records(Protocol):
    """Durable rows for a pool whose places are machines: what was intended, which machine may take which attempt.

    Every write is fenced by the ownership under which it was given; each is a compare-and-set and safe to repeat. False
    or None says that something else came first: look again. All raise Unreachable where nothing is known (no ledger, or
    the pool is another's by now). `run_job` finds them in its context and `handle_queue_size` is handed them, once at
    least at the beginning of each ownership; the other verbs use the latest.
    """

    @property
    def epoch(self) -> int:
        """Of the ownership. A higher one than before: count each machine's silence from now on, not from before."""
        ...

    async def now(self) -> float:
        """The ledger's clock (epoch seconds): that of `contact_at` and of all other times in the rows."""
        ...

    async def intend_machine(
        self, name: str, *, slots: int, facts: Mapping[str, str] | None = None
    ) -> Machine:
        """The row before the create. `name` is model.machine.machine_name(installation, pool, number), so that a
        repeat finds the row, and the create collides. Raises Conflict where the name is another pool's."""
        ...

    async def list_machines(self, *, with_gone: bool = False) -> list[Machine]:
        """Those of the pool by name; gone ones are kept for a day, so that their numbers are not used again at once."""
        ...

    async def change_machine(
        self, name: str, *, seen: MachineState, to: MachineState, facts: Mapping[str, str] | None = None
    ) -> bool:
        """From `seen` to `to`, as model.machine.CHANGES allows; merges `facts`. A machine is drained only while no
        unsettled attempt is bound to it (I9), and only a drained one is ended."""
        ...

    async def fence_machine(self, name: str, reason: str) -> bool:
        """Condemns it although it may be busy (its lease is long over, it was seen gone) and makes it ENDING. Only now
        it may be destroyed, and its attempts be told as lost. False where there is no such row."""
        ...

    async def bind(self, key: AttemptKey, machine: str) -> bool:
        """Lets a READY machine with a free slot take the attempt."""
        ...

    async def unbind(self, key: AttemptKey) -> bool:
        """Takes it back. False: its machine has taken it."""
        ...

    async def ask_stop(self, key: AttemptKey, *, grace_s: float) -> None:
        """For its machine to obey. What is not taken by now never will be. Kept over restarts."""
        ...

    async def end(self, key: AttemptKey, outcome: Outcome) -> Outcome | None:
        """Ends it from here and returns the outcome that stands: the machine's own where that came first. None: it is
        taken by a machine that is neither gone nor fenced, and nothing can be said from here."""
        ...

    async def release(self, key: AttemptKey) -> bool:
        """It is not needed any more. False while its machine has yet to drop it: ask again."""
        ...

    async def get_binding(self, key: AttemptKey) -> Binding | None:
        """Where the attempt stands, bound or not; None where there is no such attempt."""
        ...

    async def list_bindings(self, *, machine: str | None = None) -> list[Binding]:
        """Those with a row, from the first bind, stop or end on until they are released."""
        ...

    def watch(self, key: AttemptKey, *, timer_s: float = 5.0) -> AsyncGenerator[Binding, None]:
        """Where it stands now, and again after each change of it or of the pool's machines, and every `timer_s`. Ends
        when there is no such attempt. Close it (contextlib.aclosing) where you leave it early."""
        ...


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
        others: `image`, `preparing`, `workspace`, `cache`, `services`, `step:<name>`, `collecting`. Repeats change
        nothing."""
        ...

    async def record_outputs(self, outputs: Mapping[str, str]) -> None:
        """The job's named outputs (name -> text), settled together with the outcome."""
        ...

    async def record_placement(self, facts: Mapping[str, str]) -> None:
        """Where it runs and what it runs: `machine`, `node`, `zone`, `image` (its digest), … The newest value of each
        counts; at most 16 short facts are kept. For people to read: nothing is decided by it."""
        ...

    async def record_progress(
        self,
        text: str | None,
        *,
        fraction: float | None = None,
        done_bytes: int | None = None,
        total_bytes: int | None = None,
    ) -> None:
        """What it is busy with before it runs (`pulling image debian:12`), as often as it changes: the latest is shown
        within a second or so, and gone once `running` is recorded. `fraction` from 0 to 1; None is unknown; `text`
        None takes it back."""
        ...

    async def record_cache_use(self, cache: str, result: str, total: int) -> None:
        """How many things that are kept between attempts this one found, or had to make, so far: `cache` and `result`
        are words of dispatch.telemetry.CACHE_USES (`image_layers`, `present`), all others count as `other`. The newest
        total of each counts, once, with the attempt's end. For metrics alone."""
        return

    @property
    def log(self) -> LogSink:
        """The attempt's log, for what comes from afar. Not together with `log_directory`."""
        ...

    async def store_artifact(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        """Keeps one collected file, by its path relative to the workspace: all of it or nothing, the latest of
        repeated calls. Raises Invalid for a path that leaves the workspace, or above the bound of bytes or files: leave
        it out and say so in the log. Raises Unreachable where it cannot be kept now."""
        ...

    @property
    def records(self) -> Records:
        """The pool's rows, for places that are machines."""
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

    async def handle_queue_size(self, demand: Demand, records: Records) -> Supply:
        """What waits, told on each change and again on the timer: have as much as it needs, within the bounds, and let
        go of what is idle. More than there can be is clamped, never an error."""
        ...

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
