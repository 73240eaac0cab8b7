"""From the claim to the settle: what the owner of a pool takes, reports and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runyard.ledger import refusals, rows
from runyard.ledger.port import Claimed, ClaimRequest
from runyard.ledger.postgresql import pools
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.attempt import (
    PLACEMENT_FACTS_MAX,
    Attempt,
    AttemptKey,
    AttemptState,
    Progress,
    merge_placement,
)
from runyard.model.job import Job
from runyard.model.outcome import Outcome
from runyard.model.pool import Fence
from runyard.model.requirements import resource_seconds
from runyard.model.verdict import Decide, Final, Requeue, RetryCost, Verdict

CALLS_MAX = 20
ESTIMATE_WEIGHT = 0.2  # of the newest attempt in its class's moving average
_COUNTED_IN = {
    RetryCost.INFRASTRUCTURE: "infrastructure_failures",
    RetryCost.FAILURE: "failures",
    RetryCost.UNSEEN: "unseen_tries",
}


# -- claim --------------------------------------------------------------------------------------------------------
async def claim(database: Database, request: ClaimRequest) -> list[Claimed]:
    """One call, unless more queues hold something than a call looks at and those did not fill the slots."""
    claimed: list[Claimed] = []
    rooms, slots, budget = dict(request.rooms), list(request.free_slots), request.budget
    left = {
        "cpu_millis": budget.cpu_millis,
        "memory_bytes": budget.memory_bytes,
        "disk_bytes": budget.disk_bytes,
    }
    for _ in range(CALLS_MAX):
        document = {"slots": slots, "rooms": rooms, **left}
        answer = await pools.call_fenced(database, "claim", request.fence, document)
        new = [_claimed(request.fence, one, answer["at"]) for one in answer["claimed"]]
        claimed += new
        for one in new:
            _take(one, rooms, left, slots)
        if not answer["is_more"] or not slots:
            break
    return claimed


def _claimed(fence: Fence, answer: Mapping[str, Any], now: float) -> Claimed:
    job = rows.job_of(answer["job"])
    attempt = Attempt(
        key=AttemptKey(job.uid, job.attempts),
        pool=fence.pool,
        slot=answer["slot"],
        epoch=fence.epoch,
        state=AttemptState.STARTING,
        claimed_at=now,
        charged=answer["charged"],
    )
    return Claimed(job, attempt)


def _take(claimed: Claimed, rooms: dict[str, int], left: dict[str, int | None], slots: list[int]) -> None:
    """What the next call may still take."""
    requirements = claimed.job.spec.requirements
    rooms[requirements.class_key()] -= 1
    for name in ("cpu_millis", "memory_bytes", "disk_bytes"):
        budget = left[name]
        if budget is not None:
            left[name] = budget - (getattr(requirements, name) or 0)
    slots[:] = [slot for slot in slots if slot != claimed.attempt.slot]


async def list_unfinished(snapshot: Snapshot, fence: Fence) -> list[Claimed]:
    await pools.need_fenced(snapshot, fence)
    attempts = await snapshot.rows(
        "SELECT * FROM attempts WHERE pool = :pool AND state <> 'ended' ORDER BY claimed_at, uid",
        pool=fence.pool,
    )
    found = await snapshot.rows(
        "SELECT * FROM job_row WHERE uid = ANY (:uids)", uids=[row["uid"] for row in attempts]
    )
    jobs = {row["uid"]: rows.job_of(row) for row in found}
    return [Claimed(jobs[row["uid"]], rows.attempt_of(row)) for row in attempts]


# -- phases -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Report:
    """What one attempt tells: for a batch of such."""

    fence: Fence
    key: AttemptKey
    document: Mapping[str, Any]

    def to_item(self) -> dict[str, Any]:
        return {
            "pool": self.fence.pool,
            "epoch": self.fence.epoch,
            "uid": self.key.uid,
            "number": self.key.number,
            **self.document,
        }

    def refusal(self, answer: Mapping[str, Any] | None) -> Exception | None:
        match answer:
            case {"refused": "fenced", "epoch": epoch}:
                return refusals.fenced(self.fence, epoch)
            case {"refused": "not_yours", "pool": pool}:
                return refusals.not_yours(self.fence, self.key, pool)
            case _:
                return None


async def send_reports(
    database: Database, function: str, reports: Sequence[Report]
) -> list[Mapping[str, Any] | Exception]:
    answer = await database.call(function, {"items": [report.to_item() for report in reports]})
    pairs = zip(reports, answer["answers"], strict=True)
    return [report.refusal(one) or one or {} for report, one in pairs]


async def record_status(
    database: Database,
    fence: Fence,
    key: AttemptKey,
    *,
    placement: Mapping[str, str],
    progress: Progress | None,
) -> None:
    document = {**_placement_document(placement), "progress": rows.progress_to_json(progress)}
    report = Report(fence, key, document)
    refusal = report.refusal(await database.call("record_status", report.to_item()))
    if refusal is not None:
        raise refusal


def _placement_document(placement: Mapping[str, str]) -> dict[str, Any]:
    cut = {
        pools.storable(name): pools.storable(value) for name, value in merge_placement({}, placement).items()
    }
    return {"placement": cut, "placement_max": PLACEMENT_FACTS_MAX}


# -- settle -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """An attempt's end as its owner reports it."""

    outcome: Outcome
    decide: Decide
    phases: Mapping[str, float]
    outputs: Mapping[str, str]
    placement: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """The job as it stands, and whether this attempt of it is still to be settled."""

    job: Job | None
    is_open: bool
    now: float


async def look(snapshot: Snapshot, fence: Fence, key: AttemptKey) -> Standing:
    """What a settle decides on. Raises Fenced: who lost the pool is not even asked to decide."""
    row = await snapshot.row(
        "SELECT p.epoch AS pool_epoch, a.pool AS attempt_pool, a.state AS attempt_state, runyard_now(:at) AS now, r.*"
        " FROM (SELECT 1) one LEFT JOIN pools p ON p.name = :pool"
        " LEFT JOIN attempts a ON a.uid = :uid AND a.number = :number LEFT JOIN job_row r ON r.uid = :uid",
        at=snapshot.at,
        pool=fence.pool,
        uid=key.uid,
        number=key.number,
    )
    assert row is not None
    if row["pool_epoch"] != fence.epoch:
        raise refusals.fenced(fence, row["pool_epoch"])
    if row["attempt_pool"] is not None and row["attempt_pool"] != fence.pool:
        raise refusals.not_yours(fence, key, row["attempt_pool"])
    job = None if row["uid"] is None else rows.job_of(row)
    is_open = job is not None and row["attempt_state"] not in (None, AttemptState.ENDED)
    return Standing(job, is_open, row["now"])


def settling(job: Job, ending: Ending, now: float) -> dict[str, Any]:
    """The decision on the job as it was seen, with what was seen: it is taken only while the job still stands so."""
    verdict, outcome = ending.decide(job, ending.outcome, now), ending.outcome
    used = resource_seconds(job.spec.requirements, outcome.usage.wall_s) if outcome.was_seen else None
    return {
        "seen": {
            "state": job.state.value,
            "attempts": job.attempts,
            "cancel_requested_at": job.cancel_requested_at,
        },
        "outcome": rows.to_json(outcome),
        "used": used,
        "weight": ESTIMATE_WEIGHT,
        "phases": ending.phases,
        "outputs": rows.to_json(ending.outputs),
        **_placement_document(ending.placement),
        "verdict": _verdict_document(verdict),
        "reason": rows.reason_to_json(verdict.reason),
    }


def _verdict_document(verdict: Verdict) -> dict[str, Any]:
    match verdict:
        case Final():
            return {"state": verdict.state.value}
        case Requeue():
            return {
                "counter": _COUNTED_IN[verdict.cost],
                "keeps_place": verdict.keeps_place,
                "not_before": verdict.not_before,
            }
