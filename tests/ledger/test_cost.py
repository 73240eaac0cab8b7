"""What grows with the number of jobs and what must not, counted in steps of SQLite's machine and not in time."""

import sqlite3

import pytest

from runyard.ledger.port import ClaimRequest, JobFilter
from runyard.ledger.sqlite import claims, jobs, listing, pools, queues
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.pool import Fence
from runyard.model.queue import QueueSettings, TenantSettings
from tests.contracts.ledger.world import BIG, PLENTY, SMALL, new_job, pool_settings


def steps(connection: sqlite3.Connection, function, *args, **kwargs) -> int:
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    connection.set_progress_handler(count, 1)
    function(*args, **kwargs)
    connection.set_progress_handler(None, 1)
    return counted


@pytest.fixture
def tx(connection: sqlite3.Connection):
    connection.execute("BEGIN IMMEDIATE")
    tx = Transaction(connection, now=1.0)
    pools.put_pool(tx, pool_settings())
    pools.acquire_pool(tx, "local", owner="me", lease_s=9)
    yield tx
    connection.close()


def fill(tx: Transaction, first: int, count: int, **spec) -> None:
    jobs.submit(tx, [new_job(first + n, tenant=f"t{n % 50}", **spec) for n in range(count)])


def claim(tx: Transaction, slot: int) -> None:
    request = ClaimRequest(
        fence=Fence("local", 1), free_slots=(slot,), rooms={SMALL.class_key(): 1}, budget=PLENTY
    )
    [_] = claims.claim(tx, request)


def test_a_claim_costs_the_same_whatever_else_waits(tx: Transaction):
    fill(tx, 0, 100)
    claim(tx, 0)
    few = steps(tx.connection, claim, tx, 1)
    fill(tx, 1000, 3000)
    many = steps(tx.connection, claim, tx, 2)
    fill(tx, 10_000, 3000, requirements=BIG, priority=100)
    other_class = steps(tx.connection, claim, tx, 3)
    queues.put_queue(tx, QueueSettings(name="paused", is_paused=True))
    fill(tx, 20_000, 1000, queue="paused")
    other_queue = steps(tx.connection, claim, tx, 4)
    for tenant in range(40):
        queues.put_tenant(tx, TenantSettings(name=f"t{tenant}", running_max=0))
    limited_tenants = steps(tx.connection, claim, tx, 5)
    assert max(many, other_class, other_queue, limited_tenants) <= 1.2 * few


@pytest.mark.parametrize(("sql", "index"), [(claims._HEAD, "fair_next"), (claims._FIRST_JOB, "jobs_ready")])
def test_the_choice_is_read_off_its_index_without_sorting(tx: Transaction, sql: str, index: str):
    values = {"queue": "default", "class_key": "x", "tenant": "t"}
    plan = " ".join(row["detail"] for row in tx.rows(f"EXPLAIN QUERY PLAN {sql}", **values))
    assert index in plan
    assert "TEMP B-TREE" not in plan
    assert "SCAN" not in plan


@pytest.mark.parametrize(
    "filter_",
    [
        JobFilter(),
        JobFilter(tenants=("t7",)),
        JobFilter(queue="default"),
        JobFilter(tenants=("t7",), states=()),
        JobFilter(labels={"rare": "yes"}),
        JobFilter(pool="local"),
    ],
)
def test_a_page_costs_the_same_however_many_jobs_there_are(tx: Transaction, filter_: JobFilter):
    fill(tx, 0, 200)
    fill(tx, 500, 5, labels={"rare": "yes"})
    for slot in range(5):
        claim(tx, slot)
    few = steps(tx.connection, listing.list_jobs, tx, filter_, limit=3, cursor=None)
    fill(tx, 1000, 3000)
    many = steps(tx.connection, listing.list_jobs, tx, filter_, limit=3, cursor=None)
    assert many <= 1.2 * few


def test_a_search_that_finds_nothing_stops_and_can_go_on(tx: Transaction):
    fill(tx, 0, 250)
    search, found, cursor, pages = JobFilter(text="job-7"), [], None, 0
    while pages == 0 or cursor is not None:
        page = listing.list_jobs(tx, search, limit=10, cursor=cursor, scan_max=100)
        found, cursor, pages = [*found, *page.jobs], page.next_cursor, pages + 1
    assert len(found) == 11  # job-7 and job-70 to job-79
    assert pages >= 3
