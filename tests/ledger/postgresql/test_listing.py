"""The list of jobs as PostgreSQL's own words have it: what they fold, and what they cost."""

from __future__ import annotations

import random

import asyncpg
import pytest

from runyard.ledger.port import JobFilter
from runyard.ledger.postgresql import database, listing
from runyard.ledger.postgresql.folding import FOLDED_BELOW, holds_folded
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.ledger.postgresql.template import numbered
from runyard.model.job import JobState, NewJob
from tests.ledger.postgresql.conftest import Start
from tests.ledger.submitting import new_job

SURROGATES = range(0xD800, 0xE000)


async def holds(session: asyncpg.Connection, names: list[str], text: str) -> list[bool]:
    condition, values = holds_folded("name", text)
    sql, parameters = numbered(f"SELECT {condition} AS holds FROM unnest(:names::text[]) AS n (name)")
    given = {"names": names, **values}
    return [row["holds"] for row in await session.fetch(sql, *(given[name] for name in parameters))]


def test_no_character_has_a_case_that_the_table_leaves_out():
    for point in range(FOLDED_BELOW, 0x110000):
        assert chr(point).casefold() == chr(point)


async def test_every_character_folds_as_in_python(session: asyncpg.Connection):
    cased = [chr(p) for p in range(FOLDED_BELOW) if p not in SURROGATES and chr(p).casefold() != chr(p)]
    for start in range(0, len(cased), 40):
        name = "".join(cased[start : start + 40])
        assert await holds(session, [name, name[1:], name.casefold()], name.casefold()) == [True, False, True]


async def test_random_names_and_texts_agree_with_python(session: asyncpg.Connection):
    dice = random.Random(6)
    letters = "sSßẞtTﬅﬆfFiIİıﬁﬃlLkKKåÅΣσςΑαᾳιΙ%_\\.[]^-'"
    names = ["".join(dice.choices(letters, k=dice.randrange(1, 9))) for _ in range(300)]
    for _ in range(100):
        text = "".join(dice.choices(letters, k=dice.randrange(1, 4))).casefold()
        assert await holds(session, names, text) == [text in name.casefold() for name in names], text


async def filled(start: Start, count: int) -> None:
    """A hundred of each moment."""

    def numbered_job(n: int) -> NewJob:
        return new_job(n, tenant=f"t{n % 10}", name=f"Job {n}", labels={"all": "yes", "third": str(n % 3)})

    ledger = await start()
    for first in range(0, count, 100):
        await ledger.submit([numbered_job(n) for n in range(first, min(first + 100, count))])


async def test_a_search_that_finds_little_stops_and_can_go_on(start: Start, session: asyncpg.Connection):
    await filled(start, 250)
    for filter_, wanted in (
        (JobFilter(text="JOB 7"), 11),  # 7 and 70 to 79
        (JobFilter(text="job 7", tenants=("t0", "t7")), 3),
        (JobFilter(text="job 7", labels={"all": "yes"}), 11),
        (JobFilter(labels={"all": "yes", "third": "1"}, states=(JobState.FAILED,)), 0),
    ):
        found: list[str] = []
        cursor, pages = None, 0
        while pages == 0 or cursor is not None:
            page = await listing.list_jobs(
                Snapshot(session, None), filter_, limit=3, cursor=cursor, scan_max=10
            )
            assert len(page.jobs) <= 3
            found += [job.uid for job in page.jobs]
            cursor, pages = page.next_cursor, pages + 1
        assert len(found) == wanted
        assert found == sorted(set(found), reverse=True)
        assert pages >= 5  # 250 rows, or at least a fifth of them, 10 at a time


async def test_where_the_last_row_of_the_bound_fits_the_next_page_begins_behind_it(
    start: Start, session: asyncpg.Connection
):
    await filled(start, 9)
    snapshot = Snapshot(session, None)
    first = await listing.list_jobs(snapshot, JobFilter(), limit=5, cursor=None, scan_max=4)
    rest = await listing.list_jobs(snapshot, JobFilter(), limit=5, cursor=first.next_cursor)
    assert [len(first.jobs), len(rest.jobs)] == [4, 5]
    assert rest.next_cursor is None


class Explaining(Snapshot):
    """Keeps the plan of each statement that walks."""

    __slots__ = ("plans",)

    async def rows(self, sql: str, **values: object) -> list[asyncpg.Record]:
        if "place" in sql:
            text, _ = numbered(sql)
            await self.connection.execute(f"PREPARE walk AS {text}")
            unknown = ", ".join("NULL" for _ in numbered(sql)[1])
            lines = await self.connection.fetch(f"EXPLAIN EXECUTE walk({unknown})")
            await self.connection.execute("DEALLOCATE walk")
            object.__setattr__(self, "plans", [line[0] for line in lines])
        return await super().rows(sql, **values)


@pytest.mark.parametrize(
    ("filter_", "index"),
    [
        (JobFilter(), "jobs_by_state"),
        (JobFilter(text="straße", states=(JobState.FAILED,)), "jobs_by_state"),
        (JobFilter(tenants=("t1", "t2"), text="none"), "jobs_by_tenant"),
        (JobFilter(queue="default"), "jobs_by_queue"),
        (JobFilter(pool="local", states=(JobState.RUNNING,), text="none"), "jobs_by_pool_state"),
        (JobFilter(labels={"all": "yes"}, states=(JobState.LOST,)), "job_labels_pkey"),
        (JobFilter(labels={"all": "yes", "third": "1"}), "job_labels_pkey"),
    ],
)
async def test_each_range_is_read_off_its_index_in_order(
    start: Start, session: asyncpg.Connection, filter_: JobFilter, index: str
):
    """Sorted, gathered or hashed, all that the range holds would be read before the first row comes."""
    await filled(start, 300)
    await session.execute("ANALYZE")
    for name, value in database._SETTINGS.items():
        if name.startswith(("enable_", "plan_")) or name == "jit":
            await session.execute(f"SET {name} = {value}")
    snapshot = Explaining(session, None)
    await listing.list_jobs(snapshot, filter_, limit=50, cursor=None)
    plan = "\n".join(snapshot.plans)
    assert f"using {index}" in plan
    assert not [
        line for line in snapshot.plans if line.strip(" ->").startswith(("Sort  ", "Gather", "Hash"))
    ], plan
    assert "hashed SubPlan" not in plan
