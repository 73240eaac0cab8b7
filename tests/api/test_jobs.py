from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from runyard.model.attempt import Progress
from tests.api.world import a_document, failed


async def test_a_job_is_listed_newest_first_page_by_page(admin):
    for number in range(5):
        await admin.put(f"/api/v1/jobs/j-{number}", json=a_document(labels={"n": str(number % 2)}))
    first = (await admin.get("/api/v1/jobs", params={"limit": 3})).json()
    second = (await admin.get("/api/v1/jobs", params={"limit": 3, "cursor": first["next"]})).json()
    odd = (await admin.get("/api/v1/jobs", params={"label": "n=1"})).json()

    ids = [job["id"] for job in first["jobs"] + second["jobs"]]
    assert ids == [f"j-{number}" for number in (4, 3, 2, 1, 0)]
    assert second["next"] is None
    assert [job["id"] for job in odd["jobs"]] == ["j-3", "j-1"]


async def test_a_listing_narrows_by_state_queue_text_and_pool(service, admin):
    await admin.put("/api/v1/queues/fast", json={})
    await admin.put("/api/v1/jobs/a", json=a_document(queue="fast", name="Nightly Build"))
    await admin.put("/api/v1/jobs/b", json=a_document())
    await admin.post("/api/v1/jobs/b:cancel")

    for params, ids in [
        ({"state": ["queued", "running"]}, ["a"]),
        ({"state": "canceled"}, ["b"]),
        ({"queue": "fast"}, ["a"]),
        ({"text": "nightly"}, ["a"]),
        ({"pool": "local"}, []),
    ]:
        listed = (await admin.get("/api/v1/jobs", params=params)).json()["jobs"]
        assert [job["id"] for job in listed] == ids, params


async def test_waiting_ends_as_soon_as_the_job_is_final(service, admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    claimed = await service.claim()
    waiting = asyncio.create_task(admin.get("/api/v1/jobs/a", params={"wait": "60s"}, timeout=60))
    await asyncio.sleep(0)
    await service.settle(claimed.attempt.key, failed(3))
    answer = (await asyncio.wait_for(waiting, 10)).json()

    assert answer["state"] == "failed"
    assert answer["exit_code"] == 3
    assert answer["reason"]["code"] == "exit"
    assert [attempt["name"] for attempt in answer["attempts"]] == ["a.1"]
    assert answer["attempts"][0]["phases"].keys() == {"running"}


async def test_waiting_ends_after_its_time_with_the_job_as_it_stands(admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    answer = await admin.get("/api/v1/jobs/a", params={"wait": "0.05s"})

    assert answer.json()["state"] == "queued"


async def test_waiting_ends_when_the_service_stops(service, admin):
    from runyard.api.application import close_application

    await admin.put("/api/v1/jobs/a", json=a_document())
    waiting = asyncio.create_task(admin.get("/api/v1/jobs/a", params={"wait": "60s"}, timeout=60))
    await asyncio.sleep(0)
    close_application(service.app)

    assert (await asyncio.wait_for(waiting, 10)).json()["state"] == "queued"
    assert (await admin.get("/readyz")).status_code == 503


async def test_a_queued_job_is_canceled_at_once_and_a_running_one_is_asked_to_end(service, admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    await service.claim()
    await admin.put("/api/v1/jobs/b", json=a_document())

    assert (await admin.post("/api/v1/jobs/a:cancel")).json()["state"] == "canceling"
    assert (await admin.post("/api/v1/jobs/b:cancel")).json()["state"] == "canceled"
    assert (await admin.post("/api/v1/jobs/b:cancel")).status_code == 200


async def test_a_final_job_is_retried_as_a_new_one(admin):
    await admin.put("/api/v1/jobs/a", json=a_document(priority=3))
    early = await admin.post("/api/v1/jobs/a:retry")
    await admin.post("/api/v1/jobs/a:cancel")
    fresh = await admin.post("/api/v1/jobs/a:retry")
    named = [await admin.post("/api/v1/jobs/a:retry", json={"id": "a-again"}) for _ in range(2)]
    itself = await admin.post("/api/v1/jobs/a:retry", json={"id": "a"})

    assert early.status_code == 409
    assert fresh.status_code == 201
    assert fresh.json()["retry_of"] == "a"
    assert fresh.json()["priority"] == 3
    assert [answer.status_code for answer in named] == [201, 200]
    assert itself.status_code == 409


async def test_a_final_job_is_deleted_with_all_it_left(service, admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    claimed = await service.claim()
    service.write_log(claimed.attempt.key, b"hello")
    early = await admin.delete("/api/v1/jobs/a")
    await service.settle(claimed.attempt.key)
    deleted = await admin.delete("/api/v1/jobs/a")

    assert [early.status_code, deleted.status_code] == [409, 204]
    assert (await admin.get("/api/v1/jobs/a")).status_code == 404
    assert await service.logs.streams(claimed.attempt.key) == []


async def test_why_says_what_the_job_waits_for(service, admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    await admin.post("/api/v1/queues/default:pause")
    answer = (await admin.get("/api/v1/jobs/a/why")).json()
    await admin.post("/api/v1/queues/default:resume")
    await service.claim()
    running = (await admin.get("/api/v1/jobs/a/why")).json()

    assert [reason["code"] for reason in answer["reasons"]] == ["queue_paused", "no_owner"]
    assert answer["ahead"] == 0
    assert running["reasons"] == []
    assert running["state"] == "running"


async def test_the_age_of_a_reason_is_how_long_it_has_held_and_unknown_where_nobody_wrote_it_down(
    service, admin
):
    await admin.put("/api/v1/jobs/first", json=a_document())
    await service.claim()
    uid = (await admin.put("/api/v1/jobs/a", json=a_document())).json()["uid"]
    await service.state_full(uid)
    service.clock.shift_s += 30
    await service.state_full(uid)
    service.clock.shift_s += 5
    await admin.post("/api/v1/queues/default:pause")
    paused, full = (await admin.get("/api/v1/jobs/a/why")).json()["reasons"]

    assert (paused["code"], full["code"]) == ("queue_paused", "pool_full")
    assert (paused["since"], paused["age_s"], paused["stated_at"]) == (None, None, None)
    assert 35 <= full["age_s"] < 40
    assert 29 <= _seconds(full["stated_at"]) - _seconds(full["since"]) < 34


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_a_verb_is_never_part_of_a_name(admin, verb):
    answer = await admin.get(f"/api/v1/jobs/a:{verb}")

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert answer.json()["error"]["code"] == "method_not_allowed"


async def test_an_attempt_says_where_it_runs_and_what_it_prepares(service, admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    claimed = await service.claim(is_running=False)
    progress = Progress(text="pulling debian:12", at=1.0, fraction=0.5, done_bytes=1, total_bytes=2)
    await service.tell(claimed.attempt.key, progress, node="n1", image="sha256:1")
    [attempt] = (await admin.get("/api/v1/jobs/a")).json()["attempts"]

    assert attempt["placement"] == {"node": "n1", "image": "sha256:1"}
    assert attempt["progress"] == {
        "text": "pulling debian:12", "at": "1970-01-01T00:00:01Z", "fraction": 0.5, "done_bytes": 1, "total_bytes": 2,
    }  # fmt: skip
