import pytest

from runyard.ledger.port import JobFilter
from runyard.model.errors import Invalid
from runyard.model.job import JobState
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
