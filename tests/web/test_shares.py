"""Fair shares beside what was received: the parts, and where the pages say them."""

from __future__ import annotations

import re
from typing import Any, cast

import httpx2
import pytest

from runyard.ledger.port import Ledger, Received
from runyard.model.outcome import Usage, succeeded
from runyard.model.queue import Queue, QueueSettings
from runyard.model.waiting import TenantShare
from runyard.web.lately import SPAN_S, Lately, LatelyReader
from runyard.web.shares import queue_standings, standings
from tests.api.world import Service, a_document
from tests.web.browsing import send, signed_in


def a_share(tenant: str, *, weight: float = 1.0, queued: int = 1, running: int = 0) -> TenantShare:
    return TenantShare(tenant=tenant, weight=weight, virtual_time=0.0, queued=queued, running=running)


# -- the parts ----------------------------------------------------------------------------------------------------
def test_a_tenants_fair_share_is_by_weight_and_what_it_received_is_a_part_of_all() -> None:
    found = standings([a_share("a", weight=3.0, running=1), a_share("b", running=3)], {"a": 30.0, "b": 90.0})
    assert [(one.tenant, one.fair, one.has, one.received) for one in found] == [
        ("a", 0.75, 0.25, 0.25),
        ("b", 0.25, 0.75, 0.75),
    ]


def test_who_received_and_asks_for_nothing_more_has_no_fair_share_now() -> None:
    found = standings([a_share("a")], {"gone": 10.0, "most": 30.0, "none": 0.0})
    assert [(one.tenant, one.weight, one.fair, one.received) for one in found] == [
        ("a", 1.0, 1.0, 0.0),
        ("most", None, None, 0.75),
        ("gone", None, None, 0.25),
    ]


def test_where_nobody_received_anything_no_part_is_invented() -> None:
    assert [one.received for one in standings([a_share("a")], {})] == [None]
    assert [one.received for one in standings([a_share("a")], {"a": 0.0})] == [None]


def a_queue(name: str, *, weight: float = 1.0, queued: int = 1, is_paused: bool = False) -> Queue:
    settings = QueueSettings(name=name, weight=weight, is_paused=is_paused)
    return Queue(settings=settings, queued=queued, starting=0, running=0, oldest_queued_at=None)


def test_a_queue_that_is_paused_or_empty_leaves_its_share_to_the_others() -> None:
    queues = [
        a_queue("a", weight=3.0),
        a_queue("b"),
        a_queue("off", is_paused=True),
        a_queue("idle", queued=0),
    ]
    found = queue_standings(queues, {"a": 1.0, "off": 3.0})
    assert {name: (one.fair, one.received) for name, one in found.items()} == {
        "a": (0.75, 0.25),
        "b": (0.25, 0.0),
        "off": (None, 0.75),
        "idle": (None, 0.0),
    }


@pytest.mark.parametrize(
    ("span_s", "words"),
    [(SPAN_S, "the last hour"), (720.0, "the last 12 min"), (45.0, "the last 45 s")],
)
def test_the_span_is_said_as_it_was_counted(span_s: float, words: str) -> None:
    assert Lately(span_s=span_s, by_share={}).words == words


# -- the pages ----------------------------------------------------------------------------------------------------
async def ran(service: Service, api: httpx2.AsyncClient, id: str, wall_s: float, **document: object) -> None:
    await api.put(f"/api/v1/jobs/{id}", json=a_document(**document), params={"tenant": document["tenant"]})
    claimed = await service.claim()
    service.clock.shift_s += wall_s
    await service.settle(claimed.attempt.key, succeeded(Usage(wall_s=wall_s)))


async def a_shared_hour(service: Service, api: httpx2.AsyncClient) -> None:
    """`ads` received 300 s and waits for more, `web` 100 s; in another queue `ads` received 400 s."""
    await api.put("/api/v1/queues/other", json={"weight": 3})
    await ran(service, api, "one", 300, tenant="ads")
    await ran(service, api, "two", 100, tenant="web")
    await ran(service, api, "three", 400, tenant="ads", queue="other")
    await api.put("/api/v1/jobs/waits", json=a_document(tenant="ads"), params={"tenant": "ads"})


def cells(text: str, row: str) -> list[str]:
    """What a row of a table says, cell by cell."""
    [found] = re.findall(rf'<tr id="{row}">(.*?)</tr>', text, re.DOTALL)
    plain = (re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", found, re.DOTALL))
    return [" ".join(cell.split()) for cell in plain]


async def test_the_queue_page_tells_what_each_tenant_received_beside_its_fair_share(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await a_shared_hour(service, api)
    text = (await pages.get("/queues/default")).text
    assert "Received in the last hour" in text
    assert cells(text, "share-ads") == ["ads", "1.0", "100 %", "75 %", "0", "0 %", "1"]
    assert cells(text, "share-web") == ["web", "–", "–", "25 %", "0", "0 %", "0"]
    assert '<a href="/tenants/ads">ads</a>' in text


async def test_the_overview_tells_what_each_queue_received(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await a_shared_hour(service, api)
    text = (await pages.get("/")).text
    assert cells(text, "queue-default")[-2:] == ["100 %", "50 %"]
    assert cells(text, "queue-other")[-2:] == ["–", "50 %"]


async def test_with_a_single_queue_there_is_nothing_to_share(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await ran(service, api, "one", 10, tenant="ads")
    assert "Fair share" not in (await pages.get("/")).text


class CutShort:
    """A ledger in which so much ended that the latest ten minutes were counted only."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def read_received(self, *, since: float, now: float) -> Received:
        return Received({("default", "default"): 1.0}, now - 600)


async def test_where_less_than_an_hour_was_counted_that_is_the_span(service: Service):
    ledger = cast(Ledger, CutShort(service.ledger))
    lately = await LatelyReader(ledger, clock=service.clock).read()
    assert lately.words == "the last 10 min"


# -- a tenant -----------------------------------------------------------------------------------------------------
async def test_a_tenants_page_tells_what_it_has_in_each_queue_and_what_it_received(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await a_shared_hour(service, api)
    text = (await pages.get("/tenants/ads")).text
    assert cells(text, "in-default") == ["default", "1", "0", "0 %", "100 %", "75 %"]
    assert cells(text, "in-other") == ["other", "0", "0", "0 %", "–", "100 %"]
    assert "1 queued; 0 with a pool" in text
    assert re.search(r"What waits longest.*/jobs/waits\?.*Latest jobs.*/jobs/three\?", text, re.DOTALL)
    assert "/jobs/two?" not in text, "another tenant's"


async def test_what_waits_longest_comes_first_on_the_queues_and_the_tenants_page(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    for number in range(25):
        await api.put(f"/api/v1/jobs/job-{number:02d}", json=a_document())
    for path in ("/queues/default", "/tenants/default"):
        text = (await pages.get(path)).text
        listed = re.findall(r'<tr id="queued-.*?href="/jobs/(job-\d+)\?', text, re.DOTALL)
        assert listed == [f"job-{number:02d}" for number in range(20)], path
        assert "25 queued" in text, path


async def test_a_tenants_limits_are_set_on_its_page(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    await api.put("/api/v1/jobs/one", json=a_document(tenant="ads"), params={"tenant": "ads"})
    assert 'action="/tenants/ads"' in (await pages.get("/tenants/ads")).text
    answer = await send(pages, "/tenants/ads", weight="2", running_max="5", queued_max="")
    assert answer.headers["location"] == "/tenants/ads"
    text = (await pages.get("/tenants/ads")).text
    assert re.findall(r'<input name="(\w+)" value="([\d.]*)"', text) == [
        ("weight", "2.0"),
        ("running_max", "5"),
        ("queued_max", ""),
    ]


async def test_who_is_bound_to_a_tenant_sees_its_page_without_a_form_and_no_others(
    service: Service, api: httpx2.AsyncClient
):
    await a_shared_hour(service, api)
    async with service.client(None) as client:
        await signed_in(client, await service.token("operate", tenants=("ads",)))
        text = (await client.get("/tenants/ads")).text
        assert "Running at most" in text
        assert "<form" not in text.partition("<main")[2]
        assert (await client.get("/tenants/web")).status_code == 404
        queue = (await client.get("/queues/default")).text
    assert "/jobs/waits?" in queue
    assert "web" not in queue


@pytest.mark.parametrize(
    "path", ["/", "/jobs", "/jobs/waits?tenant=ads", "/queues", "/queues/default", "/pools/local", "/audit"]
)
async def test_wherever_a_tenant_is_named_its_page_is_one_click_away(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient, path: str
):
    await a_shared_hour(service, api)
    await send(pages, "/tenants/ads", weight="2")
    assert '<a href="/tenants/ads">ads</a>' in (await pages.get(path)).text
