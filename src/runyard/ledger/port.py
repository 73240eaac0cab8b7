"""The ledger's contract. Every implementation passes the one suite in tests/contracts/ledger.

Each method is one short transaction, durable when it returns. Times are the database's own clock, read inside
(`now()`), so that processes with wrong clocks agree. Listings are bounded. Errors: LedgerUnavailable where the
database cannot be reached or written (nothing is known of the effect: repeat, every method is safe to repeat),
Fenced from each method that takes a fence when its epoch is no longer the pool's, and NotFound / Invalid / Conflict /
TooMany as each says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from runyard.model.attempt import Attempt, AttemptKey, Progress
from runyard.model.audit import AuditLine
from runyard.model.event import JobEvent
from runyard.model.history import HistoryRow, HistorySum, Subject
from runyard.model.job import Job, JobState, NewJob
from runyard.model.machine import Binding, Machine, MachineState
from runyard.model.operation import Operation, OperationKind
from runyard.model.outcome import Outcome
from runyard.model.pool import Availability, Budget, ClassDemand, Fence, Pool, PoolHealth, PoolSettings
from runyard.model.queue import Queue, QueueSettings, Tenant, TenantSettings
from runyard.model.secret import StoredSecret
from runyard.model.token import Token
from runyard.model.verdict import Decide
from runyard.model.waiting import TenantDepth, TenantShare, WaitFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The answer to one submitted job. `is_new` False: the same id with the same spec was there, `job` is that one."""

    job: Job
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """None matches all. `text` is a case-insensitive part of the id or the name; `labels` must all be equal;
    submitted at `since` or later, and before `until`."""

    queue: str | None = None
    states: tuple[JobState, ...] = ()
    tenants: tuple[str, ...] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    pool: str | None = None
    text: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs, newest submission first, and the cursor of the next page (None at the end)."""

    jobs: tuple[Job, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Claimed:
    job: Job
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """What the owner of a pool wants: at most one attempt for each of `free_slots`, of the classes in `rooms` (class
    key -> how many of it at most), all together within `budget`."""

    fence: Fence
    free_slots: tuple[int, ...]
    rooms: Mapping[str, int]
    budget: Budget


@dataclass(frozen=True, slots=True)
class EndedCounts:
    """Jobs that ended, by queue, from `since` on: later than was asked where only the latest were counted."""

    by_queue: Mapping[str, int]
    since: float


@dataclass(frozen=True, slots=True)
class Received:
    """What each (queue, tenant) had of the pools, in resource seconds (model/requirements.py), from `since` on: later
    than was asked where only the latest attempts were counted."""

    by_share: Mapping[tuple[str, str], float]
    since: float


class Subscription(Protocol):
    """Topics that changed since the last wait. Coalesced, never blocking the writer. Changes of other processes may
    come late or not at all: a timer stands behind every wait."""

    async def wait(self, timeout_s: float) -> frozenset[str]:
        """The topics that fired, at once if any did already; empty after `timeout_s`."""
        ...

    def close(self) -> None: ...


class Renewer(Protocol):
    """Renews leases for a thread with a loop of its own: it shares no connection with the ledger's other calls and no
    loop. Used by one loop only."""

    async def renew_pool(self, fence: Fence, *, lease_s: float) -> None:
        """As the ledger's. A call may be cancelled: it may have got through, and the next one starts afresh."""
        ...

    async def close(self) -> None: ...


class Ledger(Protocol):
    # -- life -----------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Connects and migrates. Raises LedgerUnavailable naming the file or server and the cure."""
        ...

    async def close(self) -> None: ...

    async def now(self) -> float:
        """The database's clock, seconds since the epoch."""
        ...

    def subscribe(self, *topics: str) -> Subscription:
        """Topics: `ready` (some job became ready), `job:<uid>` (it changed), `events` (a JobEvent was written),
        `pool:<name>` (paused, resumed, an operation asked, a cancel for one of its attempts), `machines:<pool>` (one of
        its machines changed its state), `machine:<name>` (there is something for it to take, to stop or to drop)."""
        ...

    # -- jobs -----------------------------------------------------------------------------------------------------
    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted | Exception]:
        """Stores each job as queued (or answers why not), in order; one failing job does not hold back the others.

        Creates the tenant by its first job. Errors by job: NotFound (no such queue), Conflict (the id is there with
        another `spec_hash`), TooMany (queue's or tenant's queued_max). A job with the same id and spec_hash is
        answered with the one that is there, whatever its state and whatever the limits.
        """
        ...

    async def find_job(self, tenant: str, job_id: str) -> Job | None: ...

    async def get_job(self, uid: str) -> Job | None: ...

    async def list_jobs(self, filter_: JobFilter, *, limit: int, cursor: str | None = None) -> Page:
        """Keyset paging on (submitted_at, uid). Raises Invalid for a cursor that is not ours."""
        ...

    async def list_attempts(self, uid: str) -> list[Attempt]:
        """In order of number."""
        ...

    async def get_attempt(self, key: AttemptKey) -> Attempt | None: ...

    async def get_attempts(self, keys: Sequence[AttemptKey]) -> list[Attempt]:
        """Those of them that there are, in no order, in one read. At most 1,000 keys."""
        ...

    async def request_cancel(self, uid: str) -> Job:
        """A queued job becomes canceled at once. A claimed one becomes `canceling` with cancel_requested_at set, and
        `pool:<name>` fires. A final or already canceling one is returned as it is. Raises NotFound."""
        ...

    async def delete_job(self, uid: str) -> None:
        """Removes a final job with its attempts. Raises NotFound, Conflict (not final)."""
        ...

    async def wait_facts(self, uid: str) -> WaitFacts | None:
        """All that explains why it waits, in one snapshot; None when there is no such job or it is not queued."""
        ...

    # -- what people look back at, all of it bounded ---------------------------------------------------------------
    async def list_job_events(self, uid: str, *, limit: int) -> list[JobEvent]:
        """The latest `limit` of one job that are still kept, oldest first."""
        ...

    async def list_class_attempts(self, class_key: str, *, limit: int) -> list[Attempt]:
        """The deciding attempts of the jobs of that class that succeeded last, newest first."""
        ...

    async def list_broken_attempts(self, pool: str, *, since: float, limit: int) -> list[Claimed]:
        """Attempts of the pool that were lost or refused and ended since then, newest first."""
        ...

    async def list_longest_waiting(
        self, *, queue: str | None = None, tenants: tuple[str, ...] | None = None, limit: int
    ) -> list[Job]:
        """The queued jobs of the queue, of these tenants, or of both, that were submitted first, oldest first. With
        both, each tenant's 10,000 oldest are looked at."""
        ...

    async def list_shares(self, queue: str, *, limit: int) -> list[TenantShare]:
        """The tenants with unfinished jobs in it, with the most running first."""
        ...

    async def list_tenant_depths(self, tenant: str, *, limit: int) -> list[TenantDepth]:
        """The queues in which it has unfinished jobs, with the most running first."""
        ...

    async def read_received(self, *, since: float, now: float) -> Received:
        """What was received between these moments: of attempts that ended, the seconds they ran in between; of those
        that run, the seconds until `now`. Of the latest 5,000 that ended where there are more."""
        ...

    async def count_ended(self, *, since: float) -> EndedCounts:
        """How many jobs of each queue ended since then; of the latest 5,000 where there are more."""
        ...

    async def oldest_ready(self, queue: str) -> str | None:
        """The uid of the job that has been ready longest there."""
        ...

    # -- queues, tenants ------------------------------------------------------------------------------------------
    async def put_queue(self, settings: QueueSettings) -> Queue: ...

    async def get_queue(self, name: str) -> Queue | None: ...

    async def list_queues(self) -> list[Queue]: ...

    async def delete_queue(self, name: str) -> None:
        """Raises NotFound, Conflict (it holds unfinished jobs, or it is `default`)."""
        ...

    async def put_tenant(self, settings: TenantSettings) -> Tenant: ...

    async def get_tenant(self, name: str) -> Tenant | None: ...

    async def list_tenants(self) -> list[Tenant]: ...

    # -- tokens ---------------------------------------------------------------------------------------------------
    async def put_token(self, token: Token) -> None: ...

    async def find_token(self, secret_hash: str) -> Token | None: ...

    async def list_tokens(self) -> list[Token]: ...

    async def delete_token(self, token_id: str) -> bool:
        """With every session and link that was made from it. True for the one caller that removed it."""
        ...

    async def delete_expired_sessions(self, *, before: float, limit: int) -> int:
        """Sessions and links that expired before then; tokens stay, for people look for them."""
        ...

    # -- events ---------------------------------------------------------------------------------------------------
    async def list_events(
        self, *, after: int, limit: int, tenants: tuple[str, ...] | None = None
    ) -> list[JobEvent]:
        """In commit order, those with a sequence above `after`."""
        ...

    async def event_bounds(self) -> tuple[int, int]:
        """(sequence of the oldest kept event, sequence of the newest); (newest + 1, newest) when none is kept."""
        ...

    # -- pools ----------------------------------------------------------------------------------------------------
    async def put_pool(self, settings: PoolSettings) -> Pool:
        """Creates it, or updates its shape; pause, owner and epoch stay."""
        ...

    async def get_pool(self, name: str) -> Pool | None: ...

    async def list_pools(self) -> list[Pool]: ...

    async def delete_pool(self, name: str) -> None:
        """Raises NotFound, Conflict (it has unfinished attempts)."""
        ...

    async def set_pool_paused(self, name: str, *, is_paused: bool) -> Pool: ...

    async def acquire_pool(self, name: str, *, owner: str, lease_s: float) -> Fence | None:
        """Ownership at a new epoch if nobody's lease lasts, or `owner` already held it (a restart under the same name
        gets a new epoch too). None while another's lease lasts."""
        ...

    async def renew_pool(self, fence: Fence, *, lease_s: float) -> None: ...

    def renewer(self) -> Renewer:
        """The same for another thread, while the ledger is open."""
        ...

    async def release_pool(self, fence: Fence) -> None:
        """Ends the lease at once, so that another may take it. Silent where it is no longer ours."""
        ...

    async def set_pool_health(self, fence: Fence, *, health: PoolHealth, message: str) -> None: ...

    async def set_availability(self, fence: Fence, answers: Mapping[str, Availability]) -> None:
        """Stores the owner's latest answer per class; `since` moves only when kind or code changed."""
        ...

    # -- dispatch -------------------------------------------------------------------------------------------------
    async def list_demand(self, fence: Fence) -> list[ClassDemand]:
        """Classes with ready jobs in the queues that the pool serves (paused queues not counted), at most 1,000."""
        ...

    async def claim(self, request: ClaimRequest) -> list[Claimed]:
        """The fair choice and the attempts, in one transaction: over all queues that the pool serves, by weight over
        queues, by weight over tenants within a queue, by priority then age within a tenant. No limit of queue,
        tenant or pool is exceeded (I6); paused queues and pools give nothing. Each claim charges its class's
        estimate to the tenant's and the queue's virtual time. The cost does not grow with the number of queued jobs,
        of this or of any other class. Repeating it claims more: what an unanswered call claimed is found by
        `list_unfinished`.
        """
        ...

    async def list_unfinished(self, fence: Fence) -> list[Claimed]:
        """Every attempt of the pool without an accepted outcome, oldest claim first."""
        ...

    async def record_phases(self, fence: Fence, key: AttemptKey, phases: Mapping[str, float]) -> None:
        """Adds phases to the attempt (the first time of each counts). The phase `running` makes a starting attempt
        and its job running (not from canceling), and ends its progress. Silent for an ended attempt."""
        ...

    async def record_status(
        self, fence: Fence, key: AttemptKey, *, placement: Mapping[str, str], progress: Progress | None
    ) -> None:
        """Adds facts to the attempt's placement (`merge_placement`; none: it stays) and, while it is starting, makes
        `progress` what it is busy with (None: nothing). Silent for an ended attempt."""
        ...

    async def settle(
        self,
        fence: Fence,
        key: AttemptKey,
        outcome: Outcome,
        *,
        decide: Decide,
        phases: Mapping[str, float] | None = None,
        outputs: Mapping[str, str] | None = None,
        placement: Mapping[str, str] | None = None,
    ) -> Job | None:
        """Accepts the attempt's outcome, once: a second call changes nothing (I1, I2) and returns the job as it is.

        In one transaction: calls `decide` on the job as it stands, writes the outcome and the job's next state,
        frees the limits, corrects the charge from the estimate to what was used, and writes the event.
        """
        ...

    async def expire_queued(self, *, limit: int) -> list[str]:
        """Jobs whose queue deadline has passed end as timed_out(queue_timeout). Returns their uids."""
        ...

    async def promote_due(self, *, limit: int) -> int:
        """Jobs whose `not_before` has passed become ready. Returns how many."""
        ...

    async def next_due_at(self) -> float | None:
        """When the next queue deadline or retry falls due."""
        ...

    # -- machines, by the owner of their pool ------------------------------------------------------------------------
    async def intend_machine(
        self, fence: Fence, name: str, *, slots: int, facts: Mapping[str, str]
    ) -> Machine:
        """The machine's row, before anything is created (I3). A repeat returns the row as it stands. Raises Conflict
        where the name is another pool's."""
        ...

    async def get_machine(self, name: str) -> Machine | None: ...

    async def list_machines(self, pool: str, *, with_gone: bool = False) -> list[Machine]:
        """By name, at most 10,000."""
        ...

    async def change_machine(
        self, fence: Fence, name: str, *, seen: MachineState, to: MachineState, facts: Mapping[str, str]
    ) -> bool:
        """Compare-and-set from `seen` to `to`; True also where it is `to` already. READY to DRAINING only while no
        unsettled attempt is bound to it (I9), DRAINING back to READY only while no operator wants it drained. Raises
        Invalid for a change that machine.CHANGES does not know."""
        ...

    async def fence_machine(self, fence: Fence, name: str, reason: str) -> bool:
        """Condemns it, busy or not, and makes it ENDING: it takes nothing any more. False: there is no such row."""
        ...

    async def bind_attempt(self, fence: Fence, key: AttemptKey, machine: str) -> bool:
        """Lets the machine take it: the machine is READY with a free slot, the attempt unsettled, not asked to stop,
        and unbound. True also where it is bound to that machine already."""
        ...

    async def unbind_attempt(self, fence: Fence, key: AttemptKey) -> bool:
        """Takes it back: True where no machine can take it from now on, False where one did."""
        ...

    async def stop_attempt(self, fence: Fence, key: AttemptKey, *, grace_s: float) -> None:
        """Asks it to end; the first grace counts. One that is not taken will never be."""
        ...

    async def end_attempt(self, fence: Fence, key: AttemptKey, outcome: Outcome) -> Outcome | None:
        """The outcome that stands: this one, or the machine's own where it came first. None where its machine has taken
        it and is neither gone nor fenced: nothing is known then."""
        ...

    async def release_attempt(self, fence: Fence, key: AttemptKey) -> bool:
        """Nobody needs it any more: True once nothing of it is left, False while its machine still has to drop it."""
        ...

    async def get_binding(self, key: AttemptKey) -> Binding | None:
        """Of any attempt, bound or not; None where there is no such attempt."""
        ...

    async def list_bindings(self, pool: str, *, machine: str | None = None) -> list[Binding]:
        """The pool's (or only that machine's), oldest claim first, at most 10,000."""
        ...

    # -- machines, by an operator ----------------------------------------------------------------------------------
    async def set_machine_drained(self, name: str, *, is_drained: bool) -> Machine:
        """Wants it to take nothing more and to end once it holds nothing, or takes that back: its pool's owner acts on
        it. One that is ENDING or GONE stays as it is. Raises NotFound."""
        ...

    # -- machines, by themselves ----------------------------------------------------------------------------------
    async def contact_machine(
        self, name: str, *, slots: int | None = None, facts: Mapping[str, str] | None = None
    ) -> Machine | None:
        """It lives. Its first contact makes it READY. Returns what it is to be from now on; None, or GONE: nobody
        knows it any more, and it stops."""
        ...

    async def take_attempt(self, machine: str, key: AttemptKey) -> bool:
        """BOUND to TAKEN. Only after True may the machine start it; True again where it took it before."""
        ...

    async def report_attempt(
        self,
        machine: str,
        key: AttemptKey,
        *,
        phases: Mapping[str, float],
        outcome: Outcome | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> Binding | None:
        """What it knows of an attempt that it took; the first outcome counts. Returns what is wanted of it (a stop, a
        drop); None: it is not this machine's, which drops it."""
        ...

    async def drop_attempt(self, machine: str, key: AttemptKey) -> None:
        """Nothing of an unwanted attempt is left there."""
        ...

    async def delete_gone_machines(self, *, before: float, limit: int) -> int:
        """Those that are GONE since before then. Returns how many."""
        ...

    # -- operations -----------------------------------------------------------------------------------------------
    async def request_operation(
        self, pool: str, kind: OperationKind, arguments: Mapping[str, Any]
    ) -> Operation: ...

    async def list_operations(self, pool: str) -> list[Operation]:
        """Those without a result, oldest first."""
        ...

    async def get_operation(self, operation_id: str) -> Operation | None: ...

    async def get_last_answered(self, pool: str, kind: OperationKind) -> Operation | None:
        """The latest of its kind that the pool's owner answered."""
        ...

    async def finish_operation(self, fence: Fence, operation_id: str, result: Mapping[str, Any]) -> None: ...

    # -- audit ----------------------------------------------------------------------------------------------------
    async def add_audit_line(self, line: AuditLine) -> None: ...

    async def list_audit(self, *, before: int | None = None, limit: int) -> list[AuditLine]:
        """Newest first; those with a sequence below `before`, where it is given."""
        ...

    async def delete_audit(self, *, before: float, limit: int) -> int:
        """The oldest lines that are older than that time."""
        ...

    # -- secrets ----------------------------------------------------------------------------------------------------
    async def put_secret(self, secret: StoredSecret) -> None:
        """Makes or replaces it; a replaced one keeps when it was made and when it was used."""
        ...

    async def get_secret(self, tenant: str, name: str) -> StoredSecret | None: ...

    async def list_secrets(self, tenant: str | None, *, limit: int) -> list[StoredSecret]:
        """Of the tenant, None: of all, by tenant and name."""
        ...

    async def delete_secret(self, tenant: str, name: str) -> bool:
        """True for the one caller that removed it."""
        ...

    async def note_secrets_used(
        self, uses: Sequence[tuple[StoredSecret, AuditLine]], *, attempt: str
    ) -> None:
        """Before they are handed to the attempt of that resource name: when each was used, by which, and its line."""
        ...

    async def count_secret_keys(self) -> dict[str, int]:
        """How many secrets each key seals, by key id."""
        ...

    async def list_secrets_of_key(self, key_id: str, *, limit: int) -> list[StoredSecret]: ...

    async def reseal_secret(self, seen: StoredSecret, *, key_id: str, sealed: bytes) -> bool:
        """The same value under another key. False where it is no longer what was seen."""
        ...

    async def secret_realm(self, proposed: str) -> str:
        """The name of this ledger that every secret is bound to: `proposed` for the first who asks."""
        ...

    # -- history --------------------------------------------------------------------------------------------------
    async def add_history(self, rows: Sequence[HistoryRow]) -> None:
        """Each once: a row that is there already stays as it is, so that several services may write the same gauges."""
        ...

    async def read_history(
        self, subject: Subject, name: str, *, begin: int, end: int, step_s: int
    ) -> list[HistorySum]:
        """Of `name` (ALL: the sum over all): each figure over each `step_s` from `begin` on, buckets before `end`; in
        order of time, at most 50,000. Where nothing was written there is nothing."""
        ...

    async def delete_history(self, *, before: float, buckets: int) -> int:
        """The oldest buckets that are older than that time, at most so many. Returns the number of rows."""
        ...

    # -- retention ------------------------------------------------------------------------------------------------
    async def list_expired_logs(self, *, ended_before: float, limit: int) -> list[AttemptKey]:
        """Attempts of final jobs that ended before then and whose logs are not yet marked deleted, oldest first."""
        ...

    async def list_expired_artifacts(self, *, ended_before: float, limit: int) -> list[AttemptKey]: ...

    async def mark_logs_deleted(self, keys: Iterable[AttemptKey]) -> None: ...

    async def mark_artifacts_deleted(self, keys: Iterable[AttemptKey]) -> None: ...

    async def is_logs_deleted(self, key: AttemptKey) -> bool: ...

    async def list_expired_jobs(self, *, ended_before: float, limit: int) -> list[str]:
        """Uids of final jobs that ended before then, oldest first; `delete_job` removes each."""
        ...

    async def delete_events(self, *, before: float, limit: int) -> int: ...
