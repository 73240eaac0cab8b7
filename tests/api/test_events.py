from __future__ import annotations

import asyncio
import json

import pytest

from runyard.api import event_tail
from tests.api.world import a_document


async def take(client, count, **params) -> list[tuple[int, dict]]:
    """The next so many events."""
    found = []
    async with client.stream("GET", "/api/v1/events", params=params) as answer:
        assert answer.status_code == 200
        cursor = ""
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                cursor = line[4:]
            if line.startswith("data: "):
                found.append((int(cursor), json.loads(line[6:])))
                if len(found) == count:
                    break
    return found


async def test_every_state_change_comes_in_order(service, admin, listening):
    await admin.put("/api/v1/jobs/a", json=a_document())
    claimed = await service.claim()
    async with listening(await service.token("read")) as client:
        following = asyncio.create_task(take(client, 4, after=0))
        await asyncio.sleep(0)
        await service.settle(claimed.attempt.key)
        events = await asyncio.wait_for(following, 15)

    assert [event["state"] for _, event in events] == ["queued", "starting", "running", "succeeded"]
    assert [cursor for cursor, _ in events] == [event["sequence"] for _, event in events]
    assert {event["job"] for _, event in events} == {"a"}


async def test_a_follower_goes_on_behind_its_cursor(service, admin, listening):
    for number in range(4):
        await admin.put(f"/api/v1/jobs/j-{number}", json=a_document())
    async with listening(await service.token("read")) as client:
        whole = await take(client, 4, after=0)
        rest = await take(client, 2, after=whole[1][0])

    assert rest == whole[2:]


async def test_a_follower_without_a_cursor_sees_only_what_comes(service, admin, listening):
    await admin.put("/api/v1/jobs/old", json=a_document())
    async with (
        listening(await service.token("read")) as client,
        client.stream("GET", "/api/v1/events") as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)  # the stream has begun
        await admin.put("/api/v1/jobs/new", json=a_document())
        data = next_data(lines)
        assert json.loads(await asyncio.wait_for(data, 15))["job"] == "new"


async def next_data(lines) -> str:
    async for line in lines:
        if line.startswith("data: "):
            return line[6:]
    raise AssertionError("the stream ended")


async def test_a_token_follows_its_own_tenants_only(service, admin, listening):
    for tenant in ("ads", "search", "ads"):
        await admin.post("/api/v1/jobs", json=a_document(tenant=tenant))
    async with listening(await service.token("read", ("ads",))) as client:
        events = await take(client, 2, after=0)

    assert {event["tenant"] for _, event in events} == {"ads"}


@pytest.mark.parametrize("slowness", [2, 500])
async def test_a_viewer_that_is_slower_than_the_tail_loses_nothing(service, admin, monkeypatch, slowness):
    monkeypatch.setattr(event_tail, "PAGE_EVENTS_MAX", slowness)
    monkeypatch.setattr(event_tail, "TAIL_EVENTS_MAX", 3)
    tail = event_tail.EventTail(service.ledger)
    async with tail.viewing():
        for number in range(12):
            await admin.put(f"/api/v1/jobs/j-{number}", json=a_document())
        frames, cursor = [], 0
        while len(frames) < 12:
            await tail.wait(cursor, 5)
            cursor, some = await tail.read(cursor, None)
            frames += some

    ids = [int(frame.split(b"\n")[0].removeprefix(b"id: ")) for frame in frames]
    assert ids == sorted(set(ids))
    assert len(ids) == 12


async def test_a_cursor_that_is_no_longer_kept_or_of_another_ledger_is_gone(service, admin):
    for number in range(3):
        await admin.put(f"/api/v1/jobs/j-{number}", json=a_document())
    _, newest = await service.ledger.event_bounds()
    future = await admin.get("/api/v1/events", params={"after": newest + 5})
    service.clock.shift_s += 8 * 86400
    await service.ledger.delete_events(before=await service.ledger.now(), limit=1000)
    await admin.put("/api/v1/jobs/new", json=a_document())
    old = await admin.get("/api/v1/events", headers={"Last-Event-ID": "1"})

    assert [future.status_code, old.status_code] == [410, 410]
    assert old.json()["error"]["code"] == "gone"
    assert old.json()["error"]["cure"]
