"""What a ledger says no with, the same words on every database."""

from __future__ import annotations

from runyard.model.attempt import AttemptKey
from runyard.model.errors import Conflict, Fenced, Invalid, NotFound, TooMany
from runyard.model.job import NewJob
from runyard.model.machine import CHANGES, MachineState
from runyard.model.pool import Fence


def no_queue_for(queue: str) -> NotFound:
    return NotFound(
        f"there is no queue {queue!r}", field="queue", cure="create it, or name one that there is"
    )


def is_full(kind: str, name: str, *, queued: int, queued_max: int) -> TooMany:
    """`kind` is `queue` or `tenant`."""
    return TooMany(
        f"{kind} {name!r} holds {queued} queued jobs, its queued_max is {queued_max}",
        field=kind,
        cure="submit again when some of them have started, or raise queued_max",
    )


def same_id(new: NewJob) -> Conflict:
    return Conflict(
        f"job {new.id!r} of tenant {new.spec.tenant!r} is there already, with another spec",
        field="id",
        cure="choose another id, or send the same spec again",
    )


def no_job(uid: str) -> NotFound:
    return NotFound(f"there is no job with uid {uid!r}", field="uid")


def not_final(job_id: str, state: str) -> Conflict:
    return Conflict(
        f"job {job_id!r} is {state}", field="id", cure="cancel it, and delete it once it is final"
    )


def fenced(fence: Fence, epoch: int | None) -> Fenced:
    """`epoch` is the pool's own; None where there is no such pool."""
    where = "gone" if epoch is None else f"at epoch {epoch}"
    return Fenced(f"pool {fence.pool!r} is {where}; epoch {fence.epoch} may not write for it any more")


def released(fence: Fence) -> Fenced:
    return Fenced(f"pool {fence.pool!r} was released at epoch {fence.epoch}; acquire it again")


def not_yours(fence: Fence, key: AttemptKey, pool: str) -> Fenced:
    return Fenced(f"attempt {key.resource_name} is pool {pool!r}'s, not {fence.pool!r}'s")


def no_pool(name: str) -> NotFound:
    return NotFound(f"there is no pool {name!r}", field="pool")


def pool_busy(name: str, unfinished: int) -> Conflict:
    return Conflict(
        f"pool {name!r} has {unfinished} unfinished attempts",
        cure="pause it and wait until they have ended, or cancel their jobs",
    )


def pool_has_machines(name: str, machines: int) -> Conflict:
    return Conflict(f"pool {name!r} has {machines} machines", cure="let its owner end them first")


def machine_of_another_pool(name: str, pool: str) -> Conflict:
    return Conflict(
        f"machine {name!r} is pool {pool!r}'s",
        field="name",
        cure="derive the name from installation and pool",
    )


def no_machine(name: str) -> NotFound:
    return NotFound(
        f"there is no machine {name[:100]!r}",
        field="name",
        cure="`runyard machines` lists those that there are",
    )


def check_change(seen: MachineState, to: MachineState) -> None:
    """Raises Invalid."""
    if to not in CHANGES[seen]:
        raise Invalid(f"a machine that is {seen} never becomes {to}", field="state")


def no_operation(pool: str, operation_id: str) -> NotFound:
    return NotFound(f"pool {pool!r} has no operation {operation_id!r}")


def no_queue(name: str) -> NotFound:
    return NotFound(f"there is no queue {name!r}", field="queue")


def default_queue_stays() -> Conflict:
    return Conflict("the queue 'default' is where jobs go that name none", cure="pause it instead")


def queue_busy(name: str, unfinished: int) -> Conflict:
    return Conflict(f"queue {name!r} holds {unfinished} unfinished jobs", cure="cancel them or let them end")


def check_weight(what: str, weight: float) -> None:
    """Virtual time divides by it. Raises Invalid."""
    if not 0 < weight < float("inf"):
        raise Invalid(
            f"{what}: weight {weight} is not above zero", field="weight", cure="give a positive number"
        )
