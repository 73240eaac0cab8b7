from __future__ import annotations

import pytest

from tests.api.world import a_document, failed


async def test_a_row_of_a_listing_says_the_exit_code_that_the_job_itself_says(service, admin):
    for id, outcome in [("good", None), ("bad", failed(3))]:
        await admin.put(f"/api/v1/jobs/{id}", json=a_document())
        await service.settle((await service.claim()).attempt.key, outcome)
    await admin.put("/api/v1/jobs/unstarted", json=a_document())
    await admin.post("/api/v1/jobs/unstarted:cancel")
    await admin.put("/api/v1/jobs/waiting", json=a_document())

    rows = (await admin.get("/api/v1/jobs")).json()["jobs"]
    whole = {row["id"]: (await admin.get(f"/api/v1/jobs/{row['id']}")).json() for row in rows}

    assert {row["id"]: row["exit_code"] for row in rows} == {
        "good": 0, "bad": 3, "unstarted": None, "waiting": None,
    }  # fmt: skip
    left_out = {"effective", "attempts", "warnings"}
    for row in rows:
        assert row == {key: value for key, value in whole[row["id"]].items() if key not in left_out}


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/api/v1/jobs?stat=queued", "stat"),
        ("GET", "/api/v1/jobs?state=queued&x=", "x"),
        ("GET", "/api/v1/events?afer=0", "afer"),
        ("GET", "/api/v1/jobs/a/log?strem=stderr", "strem"),
        ("DELETE", "/api/v1/jobs/a?tenent=ads", "tenent"),
        ("GET", "/api/v1/queues?state=queued", "state"),
    ],
)
async def test_a_key_of_the_query_that_nobody_knows_is_refused_by_name(admin, method, path, key):
    answer = await admin.request(method, path)

    error = answer.json()["error"]
    assert answer.status_code == 422
    assert error["field"] == key
    assert key in error["message"]
    assert error["cure"]


async def test_the_time_of_submission_narrows_the_listing(service, admin):
    await admin.put("/api/v1/jobs/early", json=a_document())
    service.clock.shift_s += 7200
    await admin.put("/api/v1/jobs/late", json=a_document())
    [late, early] = (await admin.get("/api/v1/jobs")).json()["jobs"]

    async def listed(**query):
        answer = await admin.get("/api/v1/jobs", params=query)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["jobs"]]

    assert await listed(since=late["submitted_at"]) == ["late"]
    assert await listed(until=late["submitted_at"]) == ["early"]
    assert await listed(since=early["submitted_at"], until=late["submitted_at"]) == ["early"]
    assert await listed(since="2001-01-01T00:00:00+02:00", limit=1) == ["late"]
    assert await listed(until="2001-01-01T00:00:00Z") == []


@pytest.mark.parametrize("field", ["since", "until"])
@pytest.mark.parametrize("text", ["2h", "soon", "2026-11-24", "2026-11-24T10:00:00", "2026-99-01T10:00:00Z"])
async def test_what_is_no_moment_is_refused_with_its_field_and_the_cure(admin, field, text):
    answer = await admin.get("/api/v1/jobs", params={field: text})

    error = answer.json()["error"]
    assert (answer.status_code, error["field"]) == (422, field)
    assert f"{field}: '{text}' is no moment" in error["message"]
    assert error["cure"] == "write it like 2026-11-24T10:00:00Z"


async def test_the_keys_that_a_route_knows_are_taken_the_guards_too(admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    keys = "queue=default&state=queued&label=a=b&label=c=d&pool=x&text=a&limit=5&tenant=default"
    keys += "&since=2026-11-24T10:00:00Z&until=2026-11-25T10:00:00Z"

    assert (await admin.get(f"/api/v1/jobs?{keys}")).status_code == 200
    assert (await admin.get("/api/v1/jobs/a?wait=0s&tenant=default")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/api/v1/jobs", "GET, POST"),
        ("PATCH", "/api/v1/jobs/a", "DELETE, GET, PUT"),
        ("PUT", "/api/v1/tokens", "GET, POST"),
        ("POST", "/api/v1/jobs/a/log", "GET"),
        ("GET", "/api/v1/jobs:batch", "POST"),
        ("POST", "/healthz", "GET"),
    ],
)
async def test_a_wrong_method_is_answered_with_all_that_the_path_knows(admin, method, path, allowed):
    answer = await admin.request(method, path)

    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed
