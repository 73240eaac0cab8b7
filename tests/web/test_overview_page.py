import asyncio
import re

import httpx2

from runyard.model.outcome import ReasonCode, lost, refused
from runyard.model.pool import PoolHealth
from tests.api.world import Service, a_document
from tests.web.browsing import send, signed_in


async def test_a_pool_that_nobody_acts_for_needs_the_operator(pages: httpx2.AsyncClient):
    text = (await pages.get("/")).text
    assert "Needs you now" in text
    assert "No running service acts for pool local" in text


async def test_where_all_is_well_nothing_asks_for_attention(service: Service, pages: httpx2.AsyncClient):
    fence = await service.own()
    await service.ledger.set_pool_health(fence, health=PoolHealth.HEALTHY, message="")
    assert "Needs you now" not in (await pages.get("/")).text


async def test_what_is_paused_or_ill_is_said_with_the_way_there(service: Service, pages: httpx2.AsyncClient):
    fence = await service.own()
    await service.ledger.set_pool_health(fence, health=PoolHealth.UNHEALTHY, message="no cgroups")
    await send(pages, "/pools/local/pause")
    await send(pages, "/queues/default/pause")
    text = (await pages.get("/")).text
    assert '<a href="/pools/local">Pool local is unhealthy: no cgroups</a>' in text
    assert '<a href="/pools/local">Pool local is paused</a>' in text
    assert '<a href="/queues/default">Queue default is paused</a>' in text


async def test_what_was_lost_lately_is_grouped_by_why(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    for number in range(3):
        await api.put(f"/api/v1/jobs/job-{number}", json=a_document(retry={"infrastructure": 0}))
        key = (await service.claim()).attempt.key
        ended = lost("the host died", was_seen=True) if number else refused(ReasonCode.IMAGE, "no such image")
        await service.settle(key, ended)
    text = (await pages.get("/")).text
    assert "2 attempts were lost in pool local within the last hour: the host died" in text
    assert "1 attempt was refused in pool local within the last hour: no such image" in text
    pool = (await pages.get("/pools/local")).text
    assert "Lost or refused within a day" in pool
    assert pool.index("the host died") < pool.index("no such image")


async def test_what_another_tenant_lost_is_not_told(service: Service, api: httpx2.AsyncClient):
    await api.put("/api/v1/jobs/theirs", json=a_document(tenant="theirs", retry={"infrastructure": 0}))
    await service.settle((await service.claim()).attempt.key, lost("their secret reason", was_seen=True))
    async with service.client(None) as client:
        await signed_in(client, await service.token("operate", tenants=("mine",)))
        for path in ("/", "/pools/local"):
            assert "their secret reason" not in (await client.get(path)).text, path


async def test_the_first_run_teaches_the_commands_and_what_the_pools_can_isolate(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await service.own()
    text = (await pages.get("/")).text
    for command in ("runyard run -- echo hello", "runyard jobs", "runyard why"):
        assert command in text
    assert "isolation container" in text
    assert "See what it has and misses" in text
    await api.put("/api/v1/jobs/mine", json=a_document())
    assert "Nothing was submitted yet" not in (await pages.get("/")).text


async def test_numbers_stand_under_their_headings(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    """Each column is aligned as its heading is."""
    await api.put("/api/v1/jobs/mine", json=a_document())
    await api.put("/api/v1/queues/other", json={})
    for path in ("/", "/jobs", "/queues", "/queues/default", "/tenants/default"):
        for table in re.findall(r"<table>.*?</table>", (await pages.get(path)).text, re.S):
            heads = re.findall(r"<th( class=\"number\")?>", table)
            row = re.search(r"<tbody>.*?<tr[^>]*>(.*?)</tr>", table, re.S)
            assert row is not None
            assert re.findall(r"<td( class=\"number\")?[ >]", row[1]) == heads, path


async def test_counts_agree_with_the_lists_beside_them_while_everything_moves(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    is_over = asyncio.Event()

    async def submits() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            await api.put(f"/api/v1/jobs/moving-{number}", json=a_document())

    async def runs() -> None:
        while not is_over.is_set():
            try:
                claimed = await service.claim()
            except ValueError:  # nothing waits just now
                await asyncio.sleep(0)
                continue
            await service.settle(claimed.attempt.key)

    load = [asyncio.create_task(submits()), asyncio.create_task(runs())]
    try:
        for _ in range(30):
            text = (await pages.get("/queues/default")).text
            counts = re.search(r"([\d,]+) queued.*?([\d,]+) with a pool", text, re.S)
            assert counts is not None
            for count, within in zip(counts.groups(), ("queued", "running"), strict=True):
                said, rows = int(count.replace(",", "")), text.count(f'<tr id="{within}-')
                assert said == rows or (rows == 20 and said > rows), within
    finally:
        is_over.set()
        await asyncio.gather(*load)
