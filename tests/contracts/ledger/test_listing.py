from collections.abc import Callable

import pytest

from runyard.ledger.port import JobFilter
from runyard.model.errors import Invalid
from runyard.model.job import Job, JobState
from runyard.model.queue import QueueSettings
from tests.contracts.ledger.world import World


async def ids(world: World, **filter_: object) -> list[str]:
    """Over all pages, two at a time, so that each filter is paged too."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await world.ledger.list_jobs(JobFilter(**filter_), limit=2, cursor=cursor)  # type: ignore[arg-type]
        found += [job.id for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.fixture
async def filled(world: World) -> World:
    await world.ledger.put_queue(QueueSettings(name="slow"))
    await world.submit("one", tenant="a", name="Nightly Build", labels={"team": "x", "kind": "ci"})
    await world.submit("two", tenant="b", labels={"team": "x"})
    world.clock.advance(1)
    await world.submit("three", tenant="a", queue="slow", labels={"team": "y"})
    [claimed] = await world.claim(slots=(0,))
    await world.settle(claimed)
    world.clock.advance(1)
    await world.submit("four", tenant="c", queue="slow", name="rebuild")
    return world


async def test_the_newest_come_first(filled: World):
    assert await ids(filled) == ["four", "three", "two", "one"]


async def test_each_filter_narrows_and_all_of_them_together(filled: World):
    assert await ids(filled, queue="slow") == ["four", "three"]
    assert await ids(filled, tenants=("a", "c")) == ["four", "three", "one"]
    assert await ids(filled, tenants=()) == []
    assert await ids(filled, states=(JobState.SUCCEEDED,)) == ["one"]
    assert await ids(filled, states=(JobState.QUEUED, JobState.SUCCEEDED), tenants=("a",)) == ["three", "one"]
    assert await ids(filled, labels={"team": "x"}) == ["two", "one"]
    assert await ids(filled, labels={"team": "x", "kind": "ci"}) == ["one"]
    assert await ids(filled, pool="local") == ["one"]
    assert await ids(filled, text="BUILD") == ["four", "one"]
    assert await ids(filled, text="TWO") == ["two"]
    assert await ids(filled, text="%") == []
    assert await ids(filled, queue="default", tenants=("a",), labels={"kind": "ci"}, text="night") == ["one"]
    assert await ids(filled, queue="slow", pool="local") == []


async def test_times_of_submission_bound_it(filled: World):
    first = (await filled.ledger.list_jobs(JobFilter(text="one"), limit=1)).jobs[0].submitted_at
    assert await ids(filled, since=first + 1) == ["four", "three"]
    assert await ids(filled, until=first + 1) == ["two", "one"]
    assert await ids(filled, since=first + 1, until=first + 2) == ["three"]
    assert await ids(filled, since=first + 1, until=first + 2, labels={"team": "y"}) == ["three"]
    assert await ids(filled, since=first + 3) == []


async def test_what_runs_in_a_pool_is_found_among_all_that_it_ran(filled: World):
    [claimed] = await filled.claim(slots=(0,))
    await filled.run(claimed)
    assert await ids(filled, pool="local", states=(JobState.RUNNING,)) == [claimed.job.id]
    assert set(await ids(filled, pool="local")) == {"one", claimed.job.id}


async def test_paging_is_stable_while_new_jobs_arrive(filled: World):
    page = await filled.ledger.list_jobs(JobFilter(), limit=2)
    await filled.submit("five")
    rest = await filled.ledger.list_jobs(JobFilter(), limit=2, cursor=page.next_cursor)
    assert [job.id for job in rest.jobs] == ["two", "one"]
    assert rest.next_cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "ü", "W10", "WyJhIiwgMV0"])
async def test_a_cursor_that_is_not_ours_is_refused(world: World, cursor: str):
    with pytest.raises(Invalid):
        await world.ledger.list_jobs(JobFilter(), limit=2, cursor=cursor)


async def test_a_token_for_many_tenants_lists_them_all_in_order(world: World):
    """So many that their ranges do not fit into one statement of SQLite."""
    tenants = tuple(f"tenant-{number}" for number in range(90))
    for tenant in tenants:
        await world.submit(tenant, tenant=tenant)
        world.clock.advance(1)
    filter_ = JobFilter(tenants=tenants)
    first = await world.ledger.list_jobs(filter_, limit=50)
    rest = await world.ledger.list_jobs(filter_, limit=50, cursor=first.next_cursor)
    assert [job.id for job in (*first.jobs, *rest.jobs)] == list(reversed(tenants))
    assert rest.next_cursor is None
    assert (await world.ledger.list_jobs(JobFilter(tenants=()), limit=5)).jobs == ()


async def test_a_name_is_found_whatever_its_case_in_any_script(world: World):
    for name in ("Grüße aus KÖLN", None, "plain"):
        await world.submit(name=name)
    found = await world.ledger.list_jobs(JobFilter(text="grüsse AUS köln"), limit=5)
    assert [job.spec.name for job in found.jobs] == ["Grüße aus KÖLN"]


async def test_jobs_with_all_labels_are_found_whichever_is_rarer(world: World):
    for number in range(6):
        await world.submit(f"job-{number}", labels={"ci": "yes", **({} if number % 3 else {"kind": "rare"})})
        world.clock.advance(1)
    for labels in ({"ci": "yes", "kind": "rare"}, {"kind": "rare", "ci": "yes"}):
        page = await world.ledger.list_jobs(JobFilter(labels=labels), limit=1)
        rest = await world.ledger.list_jobs(JobFilter(labels=labels), limit=1, cursor=page.next_cursor)
        assert [job.id for job in (*page.jobs, *rest.jobs)] == ["job-3", "job-0"]
        assert rest.next_cursor is None
    assert (await world.ledger.list_jobs(JobFilter(labels={"ci": "yes", "kind": "none"}), limit=5)).jobs == ()


FOUND_BY = [
    ("100%_done", "0%_d", "1000 done"),
    ("100%_done", "%", "plain"),
    ("snake_case", "e_c", "snake-case"),
    (r"back\slash", "\\", "back/slash"),
    ("it's", "'S", "its"),
    ("a.c", "a.c", "abc"),
    ("[x]", "[X]", "x"),
    ("Hauptstraße", "STRASSE", "Hauptstrase"),
    ("HAUPTSTRASSE", "straße", "HAUPTSTRASE"),
    ("Straße", "ras", "Rad"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος", "ΣΊΣΥΦΟ"),
    ("ﬁnal ﬄow", "FINAL FFL", "nal ow"),
    ("ᾳ and ΐ", "ΑΙ AND ΐ", "Α AND ΐ"),
    ("İstanbul", "i̇STANBUL", "istanbul"),
    ("Kelvin", "kelvin", "Celvin"),
    ("ЖУРНАЛ", "журнал", "ЖУРНА"),
]
"""A name, a text that finds it, and a name that the same text does not find."""


@pytest.mark.parametrize(("name", "text", "other"), FOUND_BY)
async def test_a_text_is_a_part_of_the_folded_name_and_no_pattern(
    world: World, name: str, text: str, other: str
):
    await world.submit("it", name=name)
    await world.submit("other", name=other)
    await world.submit("unnamed")
    assert await ids(world, text=text) == ["it"]
    assert await ids(world, text=text, labels={"none": "x"}) == []


async def test_labels_are_matched_as_pairs(world: World):
    """Whichever label is walked by, its range holds a job with another value of the other one."""
    await world.submit("both", labels={"a": "x", "b": "y", "c": "z"})
    await world.submit("crossed", labels={"a": "y", "b": "x", "c": "z"})
    await world.submit("first", labels={"a": "x", "b": "x", "c": "z"})
    await world.submit("second", labels={"a": "y", "b": "y", "c": "z"})
    assert await ids(world, labels={"a": "x", "b": "y"}) == ["both"]
    assert await ids(world, labels={"c": "z", "b": "y", "a": "x"}) == ["both"]
    assert await ids(world, labels={"a": "x", "c": "z"}) == ["first", "both"]
    assert await ids(world, labels={"a": "x", "b": "y", "c": "none"}) == []
    assert await ids(world, labels={"a": "x", "b": "y"}, states=(JobState.FAILED,)) == []


async def test_jobs_of_one_moment_are_paged_without_a_gap_and_none_twice(world: World):
    """They are told apart by their uids, within each range and across all that are merged."""
    for number in range(9):
        await world.submit(
            tenant=f"t{number % 3}",
            name=f"part {number % 2}",
            labels={"all": "yes", "third": str(number % 3)},
        )
    await world.settle((await world.claim(slots=(0,)))[0])
    everything = (await world.ledger.list_jobs(JobFilter(), limit=100)).jobs
    assert len({job.submitted_at for job in everything}) == 1
    assert [job.uid for job in everything] == sorted((job.uid for job in everything), reverse=True)

    async def agrees(wanted: Callable[[Job], bool], **filter_: object) -> None:
        assert await ids(world, **filter_) == [job.id for job in everything if wanted(job)]

    await agrees(lambda job: True)
    await agrees(lambda job: job.tenant in ("t0", "t2"), tenants=("t2", "t0", "t2"))
    await agrees(lambda job: job.spec.name == "part 1", text="PART 1")
    await agrees(lambda job: job.tenant != "t1" and job.spec.name == "part 0", text="0", tenants=("t0", "t2"))
    await agrees(lambda job: job.spec.labels["third"] == "1", labels={"all": "yes", "third": "1"})
    await agrees(
        lambda job: job.spec.labels["third"] == "2" and job.tenant == "t2" and job.state == JobState.QUEUED,
        labels={"third": "2", "all": "yes"},
        tenants=("t2",),
        states=(JobState.QUEUED,),
    )
