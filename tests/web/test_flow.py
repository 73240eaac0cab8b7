"""What the charts of the overview are drawn from, and the alarm above them."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from runyard.model.history import ALL, HistoryRow, HistorySum, Subject
from runyard.policy.progress import STALLED_AFTER_S
from runyard.web.flow import RANGES, flow_of
from tests.api.world import Service, a_document
from tests.web.browsing import signed_in

BEGIN = 900


def a_sum(at: int, figure: str, amount: float, seconds: float = 0.0) -> HistorySum:
    return HistorySum(at=at, figure=figure, highest=amount, amount=amount, seconds=seconds)


def queued(*points: tuple[int, float], buckets: int = 8) -> list[float | None]:
    sums = [a_sum(BEGIN + 15 * at, "queued", value) for at, value in points]
    flow = flow_of(sums, [], begin=BEGIN, end=BEGIN + 15 * buckets, step_s=15)
    return list(flow.gauges["queued"])


# -- the series ---------------------------------------------------------------------------------------------------
def test_a_missing_bucket_after_a_value_is_a_gap() -> None:
    assert queued((0, 3), (1, 4), (3, 5), buckets=5) == [3, 4, None, 5, None]


def test_zero_holds_until_the_next_sign_of_life_and_no_longer() -> None:
    assert queued((0, 2), (1, 0)) == [2, 0, 0, 0, 0, 0, 0, None]
    assert queued((-1, 0), (3, 1), buckets=4) == [0, 0, 0, 1]


def test_what_one_queue_has_is_zero_while_anybody_wrote_and_unknown_while_nobody_did() -> None:
    own = [a_sum(BEGIN, "queued", 2), a_sum(BEGIN + 75, "queued", 1)]
    of_all = [a_sum(BEGIN + 15 * at, "queued", 9) for at in (0, 1, 2, 5)]
    flow = flow_of(own, [], begin=BEGIN, end=BEGIN + 105, step_s=15, signs_of_life=of_all)
    assert flow.gauges["queued"] == [2, 0, 0, None, None, 1, None]
    assert flow.gauges["running"] == [None if value is None else 0 for value in flow.gauges["queued"]]


def test_means_are_of_what_ended_and_ends_are_counted() -> None:
    counts = [
        a_sum(BEGIN, "phase:image", 4, 2.0),
        a_sum(BEGIN, "outcome:failed", 4),
        a_sum(BEGIN, "phase:step", 4, 9),
    ]
    flow = flow_of([], counts, begin=BEGIN, end=BEGIN + 30, step_s=15)
    assert flow.phases["image"] == [0.5, None]
    assert flow.outcomes["failed"] == [4, 0.0]
    assert "step" not in flow.phases
    assert not flow.is_empty


@pytest.mark.parametrize("chosen", RANGES.values(), ids=RANGES)
def test_each_range_has_a_few_hundred_points(chosen: Any) -> None:
    flow = flow_of([], [], begin=0, end=chosen.span_s, step_s=chosen.step_s)
    assert 200 < len(flow.at) < 400
    assert flow.is_empty


# -- the route ----------------------------------------------------------------------------------------------------
async def remember(service: Service, *, queued: int = 3) -> int:
    """One bucket of history, a minute ago. Returns it."""
    bucket = int(await service.ledger.now()) // 15 * 15 - 60
    rows = [
        HistoryRow(subject=Subject.QUEUE, name=ALL, bucket=bucket, figure="queued", amount=queued),
        HistoryRow(
            subject=Subject.POOL, name=ALL, bucket=bucket, figure="outcome:failed", amount=2, writer="one"
        ),
    ]
    await service.ledger.add_history(rows)
    return bucket


async def test_the_flow_is_told_by_range_and_from_the_newest_known_point_on(
    service: Service, pages: httpx2.AsyncClient
):
    bucket = await remember(service)
    for name, chosen in RANGES.items():
        flow = (await pages.get(f"/flow?range={name}")).json()
        assert flow["step_s"] == chosen.step_s
        assert len(flow["at"]) == len(flow["gauges"]["queued"]) == chosen.span_s // chosen.step_s
        assert max(value or 0 for value in flow["gauges"]["queued"]) == 3
        assert sum(flow["outcomes"]["failed"]) == 2
    news = (await pages.get(f"/flow?after={bucket}")).json()
    assert news["at"][0] == bucket
    assert news["gauges"]["queued"][0] == 3
    last = news["at"][-1]
    assert (await pages.get(f"/flow?after={last}")).json()["at"] == [last]


async def test_a_queue_and_a_pool_have_a_flow_of_their_own(service: Service, pages: httpx2.AsyncClient):
    bucket = await remember(service, queued=9)
    ci = {"subject": Subject.QUEUE, "name": "ci", "bucket": bucket}
    big = {"subject": Subject.POOL, "name": "big", "bucket": bucket}
    rows = [
        HistoryRow(**ci, figure="queued", amount=4),
        HistoryRow(**ci, figure="outcome:lost", amount=3, writer="one"),
        HistoryRow(**big, figure="running", amount=5),
        HistoryRow(**big, figure="phase:image", amount=2, seconds=3.0, writer="one"),
    ]
    await service.ledger.add_history(rows)
    queue = (await pages.get("/flow?queue=ci")).json()
    assert max(value or 0 for value in queue["gauges"]["queued"]) == 4
    assert sum(queue["outcomes"]["lost"]) == 3
    assert sum(queue["outcomes"]["failed"]) == 0
    pool = (await pages.get("/flow?pool=big&range=6h")).json()
    assert max(value or 0 for value in pool["gauges"]["running"]) == 5
    assert max(value or 0 for value in pool["phases"]["image"]) == 1.5
    assert (await pages.get("/flow?queue=none")).json()["is_empty"] is True


@pytest.mark.parametrize(
    ("path", "flow", "charts"),
    [
        ("/", "/flow?", ["jobs", "starts", "ends"]),
        ("/queues/default", "/flow?queue=default&amp;", ["jobs", "ends"]),
        ("/pools/local", "/flow?pool=local&amp;", ["jobs", "starts", "ends"]),
    ],
)
async def test_the_pages_draw_their_own_flow_above_the_lists_of_jobs(
    pages: httpx2.AsyncClient, api: httpx2.AsyncClient, path: str, flow: str, charts: list[str]
):
    await api.put("/api/v1/jobs/mine", json=a_document())
    text = (await pages.get(f"{path}?range=6h")).text
    assert f'data-flow="{flow}range=6h"' in text
    assert f'<a href="{path}?range=24h">' in text
    assert re.findall(r'data-chart="(\w+)"', text) == charts
    if path != "/pools/local":  # its latest jobs are those that it held
        assert text.index('id="flow"') < text.index("/jobs/mine?")


async def test_a_flow_of_nothing_says_so_and_the_panel_starts_hidden(pages: httpx2.AsyncClient):
    assert (await pages.get("/flow")).json()["is_empty"] is True
    assert 'data-flow="/flow?range=1h" data-still hidden' in (await pages.get("/")).text


async def test_the_range_stands_in_the_address(pages: httpx2.AsyncClient):
    text = (await pages.get("/?range=24h")).text
    assert 'data-flow="/flow?range=24h"' in text
    assert '<a href="/?range=24h" aria-current="true">' in text


@pytest.mark.parametrize(
    "path",
    [
        "/flow?range=2h",
        "/flow?after=-1",
        "/flow?after=x",
        "/?range=1w",
        "/flow?queue=..",
        "/queues/default?range=1w",
    ],
)
async def test_what_is_not_known_is_refused(pages: httpx2.AsyncClient, path: str):
    assert (await pages.get(path)).status_code == 422


async def test_who_is_not_signed_in_is_told_nothing(service: Service):
    await remember(service)
    async with service.client(None) as nobody:
        answer = await nobody.get("/flow")
    assert answer.status_code == 401
    assert "queued" not in answer.text


async def test_who_sees_the_queues_sees_their_flow(service: Service):
    """Sums over all tenants, as the counts on /queues are; no name of any of them."""
    await remember(service)
    async with service.client(None) as client:
        await signed_in(client, await service.token(tenants=("team",)))
        assert sum((await client.get("/flow")).json()["outcomes"]["failed"]) == 2


async def test_all_that_the_overview_loads_is_light(pages: httpx2.AsyncClient):
    page = (await pages.get("/")).text
    total = len(page.encode())
    for file in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        total += int((await pages.get(file)).headers["content-length"])
    assert total < 150_000


# -- the alarm ----------------------------------------------------------------------------------------------------
async def test_a_queue_in_which_nothing_starts_is_an_alarm_with_its_reason(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/waits", json=a_document())
    assert "Nothing starts" not in (await pages.get("/")).text
    service.clock.shift_s += STALLED_AFTER_S + 1
    text = (await pages.get("/")).text
    assert "Nothing starts in queue" in text
    assert '<a href="/jobs/waits">' in text
    assert "start <code>runyard serve</code> on its host" in text


async def test_an_alarm_tells_nothing_of_another_tenants_job(service: Service, api: httpx2.AsyncClient):
    await api.put("/api/v1/jobs/waits", json=a_document())
    async with service.client(None) as client:
        await signed_in(client, await service.token(tenants=("team",)))
        service.clock.shift_s += STALLED_AFTER_S + 1
        text = (await client.get("/")).text
    assert "/jobs/waits" not in text
    [alarm] = re.findall(r'<section class="card alarm".*?</section>', text, re.DOTALL)
    assert "Nothing starts in queue" in alarm
    assert "runyard serve" not in alarm
