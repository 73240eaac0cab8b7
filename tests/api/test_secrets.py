from __future__ import annotations

import base64
import json

import pytest

from runyard.model.secret import VALUE_BYTES_MAX
from tests.api.world import a_document

VALUE = "hunter2-hunter2"


async def test_a_secret_is_set_listed_and_deleted_and_its_value_is_in_no_answer(admin):
    made = await admin.put("/api/v1/secrets/NPM_TOKEN", json={"value": VALUE, "queues": ["ci"]})
    again = await admin.put("/api/v1/secrets/NPM_TOKEN", json={"value": VALUE + "2"})
    listed = await admin.get("/api/v1/secrets")
    gone = await admin.delete("/api/v1/secrets/NPM_TOKEN")
    twice = await admin.delete("/api/v1/secrets/NPM_TOKEN")
    audit = await admin.get("/api/v1/audit")

    assert (made.status_code, again.status_code, gone.status_code, twice.status_code) == (200, 200, 204, 404)
    assert made.json()["queues"] == ["ci"]
    assert again.json()["queues"] is None
    assert again.json()["created_at"] == made.json()["created_at"]
    assert [one["name"] for one in listed.json()["secrets"]] == ["NPM_TOKEN"]
    assert listed.json()["secrets"][0]["readable"] is True
    assert [line["action"] for line in audit.json()["lines"]] == ["delete", "set", "set"]
    assert VALUE not in made.text + again.text + listed.text + audit.text


async def test_a_value_lies_in_the_ledger_sealed(service, admin):
    await admin.put("/api/v1/secrets/NPM_TOKEN", json={"value": VALUE})
    [row] = await service.ledger.list_secrets(None, limit=10)

    assert VALUE.encode() not in row.sealed
    assert VALUE not in repr(row)


@pytest.mark.parametrize(
    "body",
    [
        {"value": 1234567890123},
        {"value": "s3cret" * VALUE_BYTES_MAX},
        {"value": "s3c"},
        {"valeu": "s3cret-s3cret"},
        {"value": ["s3cret-s3cret"]},
        {"base64": "s3cret-s3cret!"},
        {"value": "s3cret-s3cret", "base64": "czNjcmV0"},
        "s3cret-s3cret",
        {"s3cret-s3cret": 1},
    ],
)
async def test_a_body_that_is_wrong_is_refused_without_repeating_any_of_it(admin, body):
    answer = await admin.put("/api/v1/secrets/NPM_TOKEN", json=body)

    assert answer.status_code in (413, 422)
    assert answer.json()["error"]["cure"]
    for piece in ("s3c", "123456", "valeu", "czNj"):
        assert piece not in answer.text


@pytest.mark.parametrize(
    "kind", ["application/json", "application/yaml", "application/x-www-form-urlencoded"]
)
@pytest.mark.parametrize(
    "body", ["s3cret: s3cret: [", '{"value": 12345678901234567890123}', "{s3cret", "*s3cret"]
)
async def test_bytes_that_are_no_document_are_refused_without_repeating_any_of_them(admin, kind, body):
    answer = await admin.put("/api/v1/secrets/NPM_TOKEN", content=body, headers={"Content-Type": kind})

    assert answer.status_code in (400, 415, 422)
    assert "s3cret" not in answer.text
    assert "12345678" not in answer.text


async def test_any_bytes_come_as_base64(service, admin):
    value = bytes(range(256))
    answer = await admin.put("/api/v1/secrets/KEY", json={"base64": base64.b64encode(value).decode()})

    assert answer.status_code == 200


async def test_secrets_of_another_tenant_are_neither_seen_nor_changed(service, admin):
    await admin.put("/api/v1/secrets/KEY", json={"value": VALUE}, params={"tenant": "ads"})
    async with service.client(await service.token("operate", ("search",))) as client:
        listed = await client.get("/api/v1/secrets")
        asked = await client.get("/api/v1/secrets", params={"tenant": "ads"})
        deleted = await client.delete("/api/v1/secrets/KEY")
        put = await client.put("/api/v1/secrets/KEY", json={"value": VALUE}, params={"tenant": "ads"})
        rotated = await client.post("/api/v1/secrets:rotate")

    assert listed.json()["secrets"] == []
    assert (asked.status_code, deleted.status_code, put.status_code) == (403, 404, 403)
    assert rotated.status_code == 403


async def test_a_job_that_names_a_missing_secret_is_refused_with_the_cure(admin):
    job = a_document(secrets=["NPM_TOKEN"])
    refused = await admin.put("/api/v1/jobs/a", json=job)
    batch = await admin.post("/api/v1/jobs:batch", json={"jobs": [a_document(), job]})
    await admin.put("/api/v1/secrets/NPM_TOKEN", json={"value": VALUE})
    taken = await admin.put("/api/v1/jobs/a", json=job)

    error = refused.json()["error"]
    assert (refused.status_code, error["field"]) == (422, "secrets.0")
    assert "runyard secret set NPM_TOKEN" in error["cure"]
    assert [("id" in item and item["id"] is not None) for item in batch.json()["jobs"]] == [True, False]
    assert taken.status_code == 201
    assert taken.json()["effective"]["secrets"] == [{"name": "NPM_TOKEN", "env": "NPM_TOKEN"}]


async def test_a_secret_for_some_queues_is_refused_to_jobs_of_others(admin):
    await admin.put("/api/v1/secrets/KEY", json={"value": VALUE, "queues": ["nightly"]})
    await admin.put("/api/v1/queues/nightly", json={})
    step = {"run": "true", "secrets": [{"name": "KEY", "file": "/run/secrets/key.pem"}]}
    refused = await admin.put("/api/v1/jobs/a", json={"steps": [step]})
    taken = await admin.put("/api/v1/jobs/b", json={"queue": "nightly", "steps": [step]})

    assert refused.json()["error"]["field"] == "steps.0.secrets.0"
    assert "queue 'default'" in refused.json()["error"]["message"]
    assert taken.json()["effective"]["steps"][0]["secrets"] == [{"name": "KEY", "file": "key.pem"}]


async def test_a_job_that_is_there_is_answered_after_its_secret_was_deleted(admin):
    await admin.put("/api/v1/secrets/KEY", json={"value": VALUE})
    first = await admin.put("/api/v1/jobs/a", json=a_document(secrets=["KEY"]))
    await admin.delete("/api/v1/secrets/KEY")
    again = await admin.put("/api/v1/jobs/a", json=a_document(secrets=["KEY"]))
    other = await admin.put("/api/v1/jobs/a", json=a_document(secrets=["KEY"], priority=1))

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 422)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"secrets": ["KEY", {"name": "key2", "env": "KEY"}]}, "secrets.1"),
        ({"secrets": ["KEY"], "env": {"KEY": "x"}}, "secrets.0"),
        ({"secrets": ["KEY"], "steps": [{"run": "true", "env": {"KEY": "x"}}]}, "secrets.0"),
        ({"secrets": ["KEY"], "steps": [{"run": "true", "secrets": ["key"]}]}, "steps.0.secrets.0"),
        ({"env": {"KEY": "x"}, "steps": [{"run": "true", "secrets": ["KEY"]}]}, "steps.0.secrets.0"),
        ({"secrets": [{"name": "A", "file": "a"}, {"name": "B", "file": "a/b"}]}, "secrets.1"),
        ({"secrets": [{"name": "A", "file": "../a"}]}, "secrets.0.file"),
        ({"secrets": [{"name": "A", "file": "/etc/passwd"}]}, "secrets.0.file"),
        ({"secrets": [{"name": "A", "file": "a", "env": "A"}]}, "secrets.0"),
        ({"secrets": ["not a name"]}, "secrets.0"),
    ],
)
async def test_a_secret_in_a_wrong_place_is_refused_by_its_field(admin, document, field):
    for name in ("KEY", "key", "key2", "A", "B"):
        await admin.put(f"/api/v1/secrets/{name}", json={"value": VALUE})
    answer = await admin.put("/api/v1/jobs/a", json={**a_document(), **document})

    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["field"] == field


async def test_a_rotation_says_what_it_did(service, admin):
    await admin.put("/api/v1/secrets/KEY", json={"value": VALUE})
    done = (await admin.post("/api/v1/secrets:rotate")).json()

    assert (done["resealed"], done["unreadable"]) == (0, {})
    assert json.dumps(done).count(done["key_id"]) == 1
