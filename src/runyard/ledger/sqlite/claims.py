"""The claim: which jobs a pool gets, by fair choice, and the attempts that record it, in one transaction.

Level by level: the queue with the least virtual time in this pool that holds something takeable; in it the tenant
with the least virtual time over the takeable classes; of that tenant the job of highest priority, then the oldest.
Each level is an index lookup; nothing that cannot be taken is ever looked at.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runyard.ledger import demand, rows
from runyard.ledger.port import Claimed, ClaimRequest
from runyard.ledger.sqlite import fairness, jobs, pools
from runyard.ledger.sqlite.events import add_event
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.attempt import Attempt, AttemptKey, AttemptState
from runyard.model.job import JobState
from runyard.model.pool import Budget, PoolSettings

_HEAD = (
    "SELECT vtime, tenant FROM fair WHERE queue = :queue AND class_key = :class_key"
    " AND ready > 0 AND is_blocked = 0 ORDER BY vtime, tenant LIMIT 1"
)
_FIRST_JOB = (
    "SELECT serial, uid, id, tenant, queue, class_key, priority, queued_at, attempts FROM jobs"
    " WHERE queue = :queue AND class_key = :class_key AND tenant = :tenant AND is_ready = 1"
    " ORDER BY priority DESC, queued_at, uid LIMIT 1"
)

Head = tuple[float, str]
"""(virtual time, tenant): who is next in a lane."""


@dataclass(slots=True)
class _Room:
    """What is left for one class."""

    count: int
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    estimate: float


class _Rooms:
    """The takeable classes, shrinking as the budget goes."""

    def __init__(self, tx: Transaction, rooms: Mapping[str, int], budget: Budget) -> None:
        wanted = {key: count for key, count in rooms.items() if count > 0}
        known = tx.rows(
            "SELECT * FROM classes WHERE class_key IN (SELECT value FROM json_each(:keys))",
            keys=rows.to_json(list(wanted)),
        )
        self._rooms = {
            row["class_key"]: _Room(
                wanted[row["class_key"]],
                row["cpu_millis"],
                row["memory_bytes"],
                row["disk_bytes"] or 0,
                row["estimate"],
            )
            for row in known
        }
        self._cpu_millis = budget.cpu_millis
        self._memory_bytes = budget.memory_bytes
        self._disk_bytes = budget.disk_bytes
        self._drop_unfit()

    def __contains__(self, class_key: str) -> bool:
        return class_key in self._rooms

    def __iter__(self) -> Iterator[str]:
        return iter(self._rooms)

    def take(self, class_key: str) -> float:
        """One attempt of that class; returns what it is expected to cost."""
        room = self._rooms[class_key]
        room.count -= 1
        self._cpu_millis -= room.cpu_millis
        self._memory_bytes -= room.memory_bytes
        if self._disk_bytes is not None:
            self._disk_bytes -= room.disk_bytes
        self._drop_unfit()
        return room.estimate

    def _drop_unfit(self) -> None:
        self._rooms = {key: room for key, room in self._rooms.items() if room.count > 0 and self._fits(room)}

    def _fits(self, room: _Room) -> bool:
        return (
            room.cpu_millis <= self._cpu_millis
            and room.memory_bytes <= self._memory_bytes
            and (self._disk_bytes is None or room.disk_bytes <= self._disk_bytes)
        )


class _Choice:
    """The fair order over the queues of a pool, for the length of one transaction: heads of lanes are looked up once
    and again only for the tenant that a claim has moved."""

    def __init__(self, tx: Transaction, settings: PoolSettings, clock: float, rooms: _Rooms) -> None:
        self._tx = tx
        self._pool = settings.name
        self.clock = clock
        self._rooms = rooms
        self._owed: dict[str, float] = {}
        self._queues = self._open_queues(settings)
        self._heads: dict[str, dict[str, Head]] = {}

    def next_job(self) -> sqlite3.Row | None:
        """The job whose turn it is; None when nothing that waits can be taken."""
        while self._queues:
            queue = self._queues[0][1]
            tenant = self._next_tenant(queue)
            if tenant is not None:
                return self._first_job(queue, tenant)
            heapq.heappop(self._queues)  # nothing of it can be taken in this call any more
        return None

    def took(self, job: sqlite3.Row, cost: float) -> None:
        """Moves the virtual times past the claimed job. A queue that lags starts at the pool's clock: what it did not
        ask for is not owed to it."""
        tx, (vtime, queue) = self._tx, heapq.heappop(self._queues)
        self.clock = max(self.clock, vtime)
        row = tx.one(
            "SELECT weight, starting + running >= running_max AS is_full FROM queues WHERE name = :queue",
            queue=queue,
        )
        due = cost / row["weight"] + self._owed[queue]
        vtime, self._owed[queue] = self.clock + max(0.0, due), min(0.0, due)
        tx.execute(
            "INSERT INTO pool_queues (pool, queue, vtime, owed) VALUES (:pool, :queue, :vtime, :owed)"
            " ON CONFLICT (pool, queue) DO UPDATE SET vtime = :vtime, owed = :owed",
            pool=self._pool,
            queue=queue,
            vtime=vtime,
            owed=self._owed[queue],
        )
        if not row["is_full"]:
            heapq.heappush(self._queues, (vtime, queue))
        self._refresh_heads(job["tenant"])

    def _open_queues(self, settings: PoolSettings) -> list[tuple[float, str]]:
        found = self._tx.rows(
            "SELECT q.name, coalesce(v.vtime, 0) AS vtime, coalesce(v.owed, 0) AS owed FROM queues q"
            " LEFT JOIN pool_queues v ON v.pool = :pool AND v.queue = q.name"
            " WHERE q.queued > 0 AND q.is_paused = 0"
            " AND (q.running_max IS NULL OR q.starting + q.running < q.running_max)",
            pool=self._pool,
        )
        served = [row for row in found if demand.serves(settings, row["name"])]
        self._owed = {row["name"]: row["owed"] for row in served}
        queues = [(row["vtime"], row["name"]) for row in served]
        heapq.heapify(queues)
        return queues

    def _next_tenant(self, queue: str) -> str | None:
        if queue not in self._heads:
            lanes = self._tx.rows(
                "SELECT class_key FROM lanes WHERE queue = :queue AND ready > 0", queue=queue
            )
            self._heads[queue] = {}
            for lane in lanes:
                if lane["class_key"] in self._rooms:
                    self._look_up_head(queue, lane["class_key"])
        heads = [head for class_key, head in self._heads[queue].items() if class_key in self._rooms]
        return min(heads)[1] if heads else None

    def _look_up_head(self, queue: str, class_key: str) -> None:
        row = self._tx.row(_HEAD, queue=queue, class_key=class_key)
        if row is None:
            self._heads[queue].pop(class_key, None)
        else:
            self._heads[queue][class_key] = (row["vtime"], row["tenant"])

    def _refresh_heads(self, tenant: str) -> None:
        """Only this tenant's rows moved, and only backwards in the order: other heads are still heads."""
        for queue, heads in self._heads.items():
            for class_key in [key for key, head in heads.items() if head[1] == tenant]:
                self._look_up_head(queue, class_key)

    def _first_job(self, queue: str, tenant: str) -> sqlite3.Row:
        classes = self._tx.rows(
            "SELECT class_key FROM fair WHERE tenant = :tenant AND queue = :queue AND ready > 0",
            queue=queue,
            tenant=tenant,
        )
        firsts = [
            self._tx.one(_FIRST_JOB, queue=queue, class_key=row["class_key"], tenant=tenant)
            for row in classes
            if row["class_key"] in self._rooms
        ]
        return min(firsts, key=lambda job: (-job["priority"], job["queued_at"], job["uid"]))


def claim(tx: Transaction, request: ClaimRequest) -> list[Claimed]:
    pool = pools.need_fenced(tx, request.fence)
    settings = rows.pool_settings_of(pool["settings"])
    slots = _open_slots(tx, pool, settings, request.free_slots)
    if pool["is_paused"] or not slots:
        return []
    rooms = _Rooms(tx, request.rooms, request.budget)
    choice = _Choice(tx, settings, pool["clock"], rooms)
    claimed: list[Claimed] = []
    for slot in slots:
        job = choice.next_job()
        if job is None:
            break
        cost = rooms.take(job["class_key"])
        claimed.append(_take(tx, request, job, slot=slot, cost=cost))
        choice.took(job, cost)
    tx.execute("UPDATE pools SET clock = :clock WHERE name = :pool", clock=choice.clock, pool=settings.name)
    return claimed


def _open_slots(
    tx: Transaction, pool: sqlite3.Row, settings: PoolSettings, free_slots: tuple[int, ...]
) -> list[int]:
    """I6: never more unfinished attempts than the pool has slots, whatever its owner believes to be free."""
    taken = tx.rows("SELECT slot FROM attempts WHERE pool = :pool AND state <> 'ended'", pool=settings.name)
    in_use = {row["slot"] for row in taken}
    free = [slot for slot in dict.fromkeys(free_slots) if slot not in in_use]
    return free[: max(0, settings.slots - pool["starting"] - pool["running"])]


def _take(tx: Transaction, request: ClaimRequest, job: sqlite3.Row, *, slot: int, cost: float) -> Claimed:
    pool, queue, tenant = request.fence.pool, job["queue"], job["tenant"]
    attempt = Attempt(
        key=AttemptKey(job["uid"], job["attempts"] + 1),
        pool=pool,
        slot=slot,
        epoch=request.fence.epoch,
        state=AttemptState.STARTING,
        claimed_at=tx.now,
        charged=cost,
    )
    tx.execute(
        "UPDATE jobs SET state = 'starting', is_ready = 0, not_before = NULL, attempts = :number, pool = :pool"
        " WHERE serial = :serial",
        number=attempt.key.number,
        pool=pool,
        serial=job["serial"],
    )
    _insert_attempt(tx, attempt)
    _advance_clocks(tx, job)
    fairness.leave_ready(tx, queue, job["class_key"], tenant)
    fairness.add_queued(tx, queue, tenant, -1)
    fairness.add_starting(tx, pool, queue, tenant)
    fairness.charge(tx, queue, tenant, cost=cost)
    add_event(tx, job, JobState.STARTING, attempt=attempt.key.number)
    return Claimed(jobs.get_job_by_serial(tx, job["serial"]), attempt)


def _insert_attempt(tx: Transaction, attempt: Attempt) -> None:
    tx.execute(
        "INSERT INTO attempts (uid, number, pool, slot, epoch, state, claimed_at, phases, charged)"
        " VALUES (:uid, :number, :pool, :slot, :epoch, :state, :claimed_at, '{}', :charged)",
        uid=attempt.key.uid,
        number=attempt.key.number,
        pool=attempt.pool,
        slot=attempt.slot,
        epoch=attempt.epoch,
        state=attempt.state.value,
        claimed_at=attempt.claimed_at,
        charged=attempt.charged,
    )


def _advance_clocks(tx: Transaction, job: sqlite3.Row) -> None:
    """Lane and queue now stand at the virtual time of whom they serve; it only grows."""
    vtime = tx.one(
        "SELECT vtime FROM shares WHERE queue = :queue AND tenant = :tenant",
        queue=job["queue"],
        tenant=job["tenant"],
    )["vtime"]
    tx.execute(
        "UPDATE lanes SET clock = :vtime WHERE queue = :queue AND class_key = :class_key AND clock < :vtime",
        vtime=vtime,
        queue=job["queue"],
        class_key=job["class_key"],
    )
    tx.execute(
        "UPDATE queues SET clock = :vtime WHERE name = :queue AND clock < :vtime",
        vtime=vtime,
        queue=job["queue"],
    )
