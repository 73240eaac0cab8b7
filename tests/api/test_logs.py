from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from runyard.api.log_following import LogCursor
from runyard.logs.layout import write_cut
from runyard.model.errors import Invalid
from tests.api.world import a_document, failed

SSE = {"Accept": "text/event-stream"}
TWO_STEPS = {"steps": [{"name": "one", "run": "x"}, {"name": "two", "run": "y"}]}


@dataclass
class Event:
    kind: str
    id: str
    data: dict[str, Any]

    @property
    def text(self) -> bytes:
        return base64.b64decode(self.data["data"])


async def events_of(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Event(fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"]))
            fields = {}


async def follow(client, path, **headers) -> list[Event]:
    async with client.stream("GET", path, headers=SSE | headers) as answer:
        assert answer.status_code == 200
        return [event async for event in events_of(answer.aiter_lines())]


def by_stream(events: list[Event]) -> dict[tuple[str, str], tuple[int, bytes]]:
    """Where each stream begins, and its bytes, which must follow on each other."""
    streams: dict[tuple[str, str], tuple[int, bytes]] = {}
    for event in events:
        if "data" in event.data:
            at = (event.data["step"], event.data["stream"])
            begin, data = streams.get(at, (event.data["offset"], b""))
            assert event.data["offset"] == begin + len(data)
            streams[at] = (begin, data + event.text)
    return streams


async def running(service, admin, **changes):
    await admin.put("/api/v1/jobs/a", json=a_document(**changes))
    return (await service.claim()).attempt.key


async def test_the_bytes_of_a_stream_are_served_as_they_are(service, admin):
    key = await running(service, admin)
    service.write_log(key, b"out\0\xff\n")
    service.write_log(key, b"err\n", stream="stderr")

    out = await admin.get("/api/v1/jobs/a/log")
    err = await admin.get("/api/v1/jobs/a/log", params={"stream": "stderr", "step": "step-1", "attempt": 1})
    assert out.content == b"out\0\xff\n"
    assert err.content == b"err\n"
    assert out.headers["Content-Type"] == "application/octet-stream"
    assert out.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("header", "status", "content", "said"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=5-900", 206, b"56789", "bytes 5-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=" + "9" * 400 + "-", 200, b"0123456789", None),
    ],
)
async def test_a_range_of_a_stream_is_served(service, admin, header, status, content, said):
    service.write_log(await running(service, admin), b"0123456789")
    answer = await admin.get("/api/v1/jobs/a/log", headers={"Range": header})

    assert answer.status_code == status
    assert answer.headers.get("Content-Range") == said
    assert content is None or answer.content == content


async def test_without_a_step_all_steps_of_a_stream_come_one_after_the_other(service, admin):
    key = await running(service, admin, **TWO_STEPS)
    service.write_log(key, b"1", step="000")
    service.write_log(key, b"2", step="001")
    service.write_log(key, b"git", step="setup")

    assert (await admin.get("/api/v1/jobs/a/log")).content == b"12"
    assert (await admin.get("/api/v1/jobs/a/log", params={"step": "two"})).content == b"2"
    assert (await admin.get("/api/v1/jobs/a/log", params={"step": "setup"})).content == b"git"
    assert (await admin.get("/api/v1/jobs/a/log", params={"step": "three"})).status_code == 404
    assert (await admin.get("/api/v1/jobs/a/log", params={"offset": 1})).status_code == 422


async def test_what_a_service_prints_is_served_by_its_name_and_no_part_of_all_steps(service, admin):
    key = await running(service, admin, limits={"queue": "1h"}, services={"db": {"image": "postgres"}})
    service.write_log(key, b"of the job")
    service.write_log(key, b"of the database", step="s000")
    await service.settle(key)

    path = "/api/v1/jobs/a/log"
    assert (await admin.get(path)).content == b"of the job"
    assert (await admin.get(path, params={"step": "service:db"})).content == b"of the database"
    assert set(by_stream(await follow(admin, path))) == {("step-1", "stdout")}
    assert set(by_stream(await follow(admin, f"{path}?step=service:db"))) == {("service:db", "stdout")}


async def test_the_middle_that_was_cut_is_left_out_and_said(service, admin):
    key = await running(service, admin)
    service.write_log(key, b"head" + b"\0" * 6 + b"tail")
    write_cut(service.logs.directory(key) / "000.stdout", 4, 10)
    await service.settle(key)

    whole = await admin.get("/api/v1/jobs/a/log")
    before = await admin.get("/api/v1/jobs/a/log", headers={"Range": "bytes=2-12"})
    inside = await admin.get("/api/v1/jobs/a/log", headers={"Range": "bytes=6-12"})
    nothing = await admin.get("/api/v1/jobs/a/log", headers={"Range": "bytes=6-8"})
    assert whole.content == b"headtail"
    assert whole.headers["Content-Length"] == "8"
    assert whole.headers["Runyard-Log-Cut"] == "4-10"
    assert (before.content, before.headers["Content-Range"]) == (b"ad", "bytes 2-3/14")
    assert (inside.content, inside.headers["Content-Range"]) == (b"tai", "bytes 10-12/14")
    assert nothing.status_code == 416


async def test_a_deleted_log_is_gone(service, admin):
    key = await running(service, admin)
    await service.settle(key)
    await service.ledger.mark_logs_deleted([key])

    assert (await admin.get("/api/v1/jobs/a/log")).status_code == 410
    assert (await admin.get("/api/v1/jobs/a/log", headers=SSE)).status_code == 410


async def test_a_follower_gets_every_byte_and_then_the_end(service, admin, listening):
    key = await running(service, admin, **TWO_STEPS)
    service.write_log(key, b"before ")
    async with listening(await service.token("read")) as client:
        seen = asyncio.create_task(follow(client, "/api/v1/jobs/a/log"))
        await asyncio.sleep(0)
        service.write_log(key, b"after")
        service.write_log(key, b"\xff\0", step="001", stream="stderr")
        await service.settle(key, failed(7))
        events = await asyncio.wait_for(seen, 15)

    assert by_stream(events) == {
        ("one", "stdout"): (0, b"before after"),
        ("two", "stderr"): (0, b"\xff\0"),
    }
    assert (events[-1].kind, events[-1].data) == ("end", {"state": "failed", "exit_code": 7, "signal": None})


async def test_a_follower_that_comes_back_goes_on_where_it_was(service, admin, listening):
    key = await running(service, admin, **TWO_STEPS)
    service.write_log(key, b"x" * 200_000)
    service.write_log(key, b"y" * 100_000, stream="stderr")
    service.write_log(key, b"z", step="001")
    await service.settle(key)
    async with listening(await service.token("read")) as client:
        whole = await follow(client, "/api/v1/jobs/a/log")
        for index, event in enumerate(whole[:-1]):
            rest = await follow(client, "/api/v1/jobs/a/log", **{"Last-Event-ID": event.id})
            assert by_stream(rest) == by_stream(whole[index + 1 :])


async def test_without_an_attempt_the_follower_goes_on_to_the_retry(service, admin, listening):
    key = await running(service, admin, retry={"failure": 1})
    service.write_log(key, b"first")
    async with listening(await service.token("read")) as client:
        only = asyncio.create_task(follow(client, "/api/v1/jobs/a/log?attempt=1"))
        began = asyncio.Event()
        following = asyncio.create_task(hand_on(client, began))
        await began.wait()
        await service.settle(key, failed(1))
        service.clock.shift_s += 600
        await service.ledger.promote_due(limit=10)
        again = (await service.claim()).attempt.key
        service.write_log(again, b"second")
        await service.settle(again)
        events, first = await asyncio.wait_for(asyncio.gather(following, only), 20)

    assert [(event.data["attempt"], event.text) for event in events[:-1]] == [(1, b"first"), (2, b"second")]
    assert events[-1].data["state"] == "succeeded"
    assert first[-1].data == {"state": "failed", "exit_code": 1, "signal": None}


async def hand_on(client, began) -> list[Event]:
    """Follows, and says when the first event came."""
    async with client.stream("GET", "/api/v1/jobs/a/log", headers=SSE) as answer:
        events = []
        async for event in events_of(answer.aiter_lines()):
            began.set()
            events.append(event)
        return events


async def test_a_follower_of_a_queued_job_waits_and_one_of_a_canceled_job_ends(service, admin, listening):
    await admin.put("/api/v1/jobs/a", json=a_document())
    async with listening(await service.token("read")) as client:
        seen = asyncio.create_task(follow(client, "/api/v1/jobs/a/log"))
        await asyncio.sleep(0)
        await admin.post("/api/v1/jobs/a:cancel")
        events = await asyncio.wait_for(seen, 15)

    assert [(event.kind, event.data["state"]) for event in events] == [("end", "canceled")]


async def test_a_cut_and_a_shrunk_stream_are_said(service, admin, listening):
    key = await running(service, admin)
    service.write_log(key, b"head" + b"\0" * 6 + b"tail")
    file = service.logs.directory(key) / "000.stdout"
    write_cut(file, 4, 10)
    await service.settle(key)
    async with listening(await service.token("read")) as client:
        events = await follow(client, "/api/v1/jobs/a/log")
        file.write_bytes(b"he")
        later = await follow(client, "/api/v1/jobs/a/log", **{"Last-Event-ID": events[-2].id})

    assert [event.kind for event in events] == ["message", "cut", "message", "end"]
    assert (events[1].data["offset"], events[1].data["to"]) == (4, 10)
    assert [(event.kind, event.data.get("offset"), event.data.get("to")) for event in later] == [
        ("gap", 2, 14),
        ("end", None, None),
    ]


async def test_a_stream_ends_when_its_token_is_revoked(service, admin, listening):
    await admin.put("/api/v1/jobs/a", json=a_document())
    async with (
        listening(await service.token("read", id="short-lived")) as client,
        client.stream("GET", "/api/v1/jobs/a/log", headers=SSE) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        await admin.delete("/api/v1/tokens/short-lived")
        events = [event async for event in events_of(lines)]

    assert events == []


@pytest.mark.parametrize(
    "text", ["x", "1,", "1,000.x5", "1,000.o", "-1", "1,000.o99999999999999999999", "9" * 50_000]
)
def test_a_cursor_that_is_not_ours_is_refused(text):
    with pytest.raises(Invalid):
        LogCursor.parse(text)


def test_a_cursor_reads_back_as_it_was():
    cursor = LogCursor(3, {("setup", "stdout"): 5, ("000", "stderr"): 7})

    assert LogCursor.parse(str(cursor)) == cursor
