"""Counters, readiness, virtual time and blocking: the bookkeeping that makes a fair claim a few index lookups.

A share is (queue, tenant) and owns the tenant's virtual time there. A lane is (queue, class). A fair row is (queue,
class, tenant): it is there only while that tenant has ready jobs of that class, carries a copy of the share's virtual
time, and is blocked while a running limit holds the tenant back. So the least unblocked fair row of a lane is the next
tenant, however many jobs, tenants and other classes wait.

Idling earns no credit: who becomes ready, or is let go by a limit, starts no earlier than the lane's clock, which is
the virtual time at which the lane last served somebody. The clock is the lane's and not the queue's, or a newcomer to
a lane that is served slowly would wait until that lane had caught up with the fast ones. An empty lane begins at the
queue's clock.

No RETURNING in here: inside a SAVEPOINT (every caller of the writer is in one) SQLite opens a statement journal for
it, whose cost grew with the database: a submit took 0.12 ms a job at 10,000 stored jobs, 0.4 ms at 40,000. A second
lookup is 3 µs.
"""

from __future__ import annotations

from runyard.ledger.sqlite.transaction import Transaction

# Literal in the statements that need it: is this tenant held back in this queue?
_IS_HELD_BACK = """
    (EXISTS (SELECT 1 FROM tenants t WHERE t.name = fair.tenant AND t.running >= t.running_max)
     OR EXISTS (SELECT 1 FROM shares s JOIN queues q ON q.name = s.queue
                WHERE s.queue = fair.queue AND s.tenant = fair.tenant AND s.running >= q.tenant_running_max))
"""


_FAIR_ROW = "queue = :queue AND class_key = :class_key AND tenant = :tenant"


def add_queued(tx: Transaction, queue: str, tenant: str, count: int) -> None:
    """Counts jobs in or out of the state queued; the share comes into being with its first."""
    tx.execute("UPDATE queues SET queued = queued + :count WHERE name = :queue", queue=queue, count=count)
    tx.execute("UPDATE tenants SET queued = queued + :count WHERE name = :tenant", tenant=tenant, count=count)
    tx.execute(
        "INSERT INTO shares (queue, tenant, queued) VALUES (:queue, :tenant, :count)"
        " ON CONFLICT (queue, tenant) DO UPDATE SET queued = queued + :count",
        queue=queue,
        tenant=tenant,
        count=count,
    )


def become_ready(tx: Transaction, queue: str, class_key: str, tenant: str, *, count: int = 1) -> None:
    """Jobs of that class and tenant can be claimed from now on. Needs the share (`add_queued` first)."""
    key = {"queue": queue, "class_key": class_key, "tenant": tenant}
    clock = _open_lane(tx, queue, class_key, count=count)
    tx.execute(
        "UPDATE shares SET ready = ready + :count,"
        " vtime = CASE WHEN ready = 0 AND :clock > vtime THEN :clock ELSE vtime END"
        " WHERE queue = :queue AND tenant = :tenant",
        queue=queue,
        tenant=tenant,
        count=count,
        clock=clock,
    )
    is_known = tx.execute(f"UPDATE fair SET ready = ready + :count WHERE {_FAIR_ROW}", count=count, **key)
    if not is_known:
        tx.execute(
            "INSERT INTO fair (queue, class_key, tenant, ready, vtime, is_blocked)"
            " SELECT :queue, :class_key, :tenant, :count, vtime, 0 FROM shares"
            " WHERE queue = :queue AND tenant = :tenant",
            count=count,
            **key,
        )
        tx.execute(f"UPDATE fair SET is_blocked = 1 WHERE {_FAIR_ROW} AND {_IS_HELD_BACK}", **key)
    tx.fire("ready")


def _open_lane(tx: Transaction, queue: str, class_key: str, *, count: int) -> float:
    """Counts into the lane and returns its clock."""
    tx.execute(
        "INSERT INTO lanes (queue, class_key, ready, clock)"
        " VALUES (:queue, :class_key, :count, (SELECT clock FROM queues WHERE name = :queue))"
        " ON CONFLICT (queue, class_key) DO UPDATE SET ready = lanes.ready + :count,"
        " clock = CASE WHEN lanes.ready = 0 AND excluded.clock > lanes.clock THEN excluded.clock"
        " ELSE lanes.clock END",
        queue=queue,
        class_key=class_key,
        count=count,
    )
    lane = tx.one(
        "SELECT clock FROM lanes WHERE queue = :queue AND class_key = :class_key",
        queue=queue,
        class_key=class_key,
    )
    return float(lane["clock"])


def leave_ready(tx: Transaction, queue: str, class_key: str, tenant: str) -> None:
    """One job less that can be claimed: it was, or it ended."""
    key = {"queue": queue, "class_key": class_key, "tenant": tenant}
    tx.execute(
        "UPDATE lanes SET ready = ready - 1 WHERE queue = :queue AND class_key = :class_key",
        queue=queue,
        class_key=class_key,
    )
    tx.execute(
        "UPDATE shares SET ready = ready - 1 WHERE queue = :queue AND tenant = :tenant",
        queue=queue,
        tenant=tenant,
    )
    tx.execute(f"UPDATE fair SET ready = ready - 1 WHERE {_FAIR_ROW}", **key)
    tx.execute(f"DELETE FROM fair WHERE {_FAIR_ROW} AND ready = 0", **key)


def charge(tx: Transaction, queue: str, tenant: str, *, cost: float) -> None:
    """Moves the tenant's virtual time by cost over weight: forward at the claim, either way at the correction."""
    tx.execute(
        "UPDATE shares SET vtime = vtime + :cost / (SELECT weight FROM tenants WHERE name = :tenant)"
        " WHERE queue = :queue AND tenant = :tenant",
        queue=queue,
        tenant=tenant,
        cost=cost,
    )
    tx.execute(
        "UPDATE fair SET vtime = (SELECT vtime FROM shares WHERE queue = :queue AND tenant = :tenant)"
        " WHERE tenant = :tenant AND queue = :queue",
        queue=queue,
        tenant=tenant,
    )


def correct_queue(tx: Transaction, pool: str, queue: str, *, cost: float) -> None:
    """A queue's correction waits for its next claim in that pool: moved at once, it would be lost whenever the pool's
    clock had passed it meanwhile. Each pool is a fair server of its own, or a queue that a second, faster pool serves
    too would wait behind the others in the first."""
    tx.execute(
        "UPDATE pool_queues SET owed = owed + :cost / (SELECT weight FROM queues WHERE name = :queue)"
        " WHERE pool = :pool AND queue = :queue",
        pool=pool,
        queue=queue,
        cost=cost,
    )


def add_starting(tx: Transaction, pool: str, queue: str, tenant: str) -> None:
    """An attempt was claimed."""
    tx.execute("UPDATE pools SET starting = starting + 1 WHERE name = :pool", pool=pool)
    tx.execute(
        "UPDATE queues SET starting = starting + 1, last_claimed_at = :now WHERE name = :queue",
        queue=queue,
        now=tx.now,
    )
    _add_unfinished(tx, queue, tenant, 1)


def starting_to_running(tx: Transaction, pool: str, queue: str) -> None:
    tx.execute(
        "UPDATE pools SET starting = starting - 1, running = running + 1 WHERE name = :pool", pool=pool
    )
    tx.execute(
        "UPDATE queues SET starting = starting - 1, running = running + 1 WHERE name = :queue", queue=queue
    )


def release(tx: Transaction, pool: str, queue: str, tenant: str, *, was_running: bool) -> None:
    """An attempt ended: its place within the limits of pool, queue and tenant is free."""
    moved = {"starting": 0 if was_running else 1, "running": 1 if was_running else 0}
    tx.execute(
        "UPDATE pools SET starting = starting - :starting, running = running - :running WHERE name = :pool",
        pool=pool,
        **moved,
    )
    tx.execute(
        "UPDATE queues SET starting = starting - :starting, running = running - :running WHERE name = :queue",
        queue=queue,
        **moved,
    )
    was_full = tx.one(
        "SELECT starting + running + 1 = running_max AS was_full FROM queues WHERE name = :queue", queue=queue
    )["was_full"]
    if was_full:
        tx.fire("ready")  # other pools that serve the queue may be waiting for this
    _add_unfinished(tx, queue, tenant, -1)


def reblock_queue(tx: Transaction, queue: str) -> None:
    """The queue's own limits changed."""
    _reblock(tx, "fair.queue = :name", queue)


def reblock_tenant(tx: Transaction, tenant: str) -> None:
    """The tenant's limits changed, or how much of them it uses."""
    _reblock(tx, "fair.tenant = :name", tenant)


def _add_unfinished(tx: Transaction, queue: str, tenant: str, count: int) -> None:
    """Blocks or lets go where a limit is crossed, and only there: other changes cost no further statement."""
    tx.execute(
        "UPDATE tenants SET running = running + :count WHERE name = :tenant", tenant=tenant, count=count
    )
    tx.execute(
        "UPDATE shares SET running = running + :count WHERE queue = :queue AND tenant = :tenant",
        queue=queue,
        tenant=tenant,
        count=count,
    )
    over_all = tx.one("SELECT running, running_max FROM tenants WHERE name = :tenant", tenant=tenant)
    here = tx.one(
        "SELECT s.running, q.tenant_running_max AS running_max FROM shares s JOIN queues q ON q.name = s.queue"
        " WHERE s.queue = :queue AND s.tenant = :tenant",
        queue=queue,
        tenant=tenant,
    )
    if _is_crossed(over_all["running"], over_all["running_max"], count) or _is_crossed(
        here["running"], here["running_max"], count
    ):
        reblock_tenant(tx, tenant)


def _is_crossed(running: int, running_max: int | None, count: int) -> bool:
    if running_max is None:
        return False
    return (running >= running_max) != (running - count >= running_max)


def _reblock(tx: Transaction, which: str, name: str) -> None:
    let_go = tx.rows(
        f"SELECT DISTINCT queue, tenant FROM fair WHERE {which} AND is_blocked = 1 AND NOT {_IS_HELD_BACK}",
        name=name,
    )
    tx.execute(f"UPDATE fair SET is_blocked = {_IS_HELD_BACK} WHERE {which}", name=name)
    for share in let_go:
        _catch_up(tx, share["queue"], share["tenant"])
    if let_go:
        tx.fire("ready")


def _catch_up(tx: Transaction, queue: str, tenant: str) -> None:
    """What a limit kept it from having is not owed to it: it goes on from the slowest of its lanes' clocks."""
    clock = tx.one(
        "SELECT min(l.clock) AS clock FROM fair f JOIN lanes l ON l.queue = f.queue AND l.class_key = f.class_key"
        " WHERE f.tenant = :tenant AND f.queue = :queue",
        queue=queue,
        tenant=tenant,
    )["clock"]
    for table in ("shares", "fair"):
        tx.execute(
            f"UPDATE {table} SET vtime = :clock WHERE queue = :queue AND tenant = :tenant AND vtime < :clock",
            queue=queue,
            tenant=tenant,
            clock=clock,
        )
