from __future__ import annotations

import asyncio

import pytest

from runyard.model.machine import MachineState
from runyard.model.queue import QueueSettings, TenantSettings
from tests.api.world import a_document


async def test_a_queue_is_made_set_paused_and_deleted(admin):
    made = (await admin.put("/api/v1/queues/fast", json={"weight": 3, "running_max": 2})).json()
    paused = (await admin.post("/api/v1/queues/fast:pause")).json()
    again = (await admin.put("/api/v1/queues/fast", json={})).json()
    deleted = await admin.delete("/api/v1/queues/fast")

    assert (made["weight"], made["running_max"], made["paused"]) == (3.0, 2, False)
    assert paused["paused"]
    assert (again["weight"], again["running_max"], again["paused"]) == (1.0, None, True)
    assert deleted.status_code == 204
    assert (await admin.get("/api/v1/queues/fast")).status_code == 404


async def test_a_queue_with_unfinished_jobs_and_the_default_one_are_not_deleted(admin):
    await admin.put("/api/v1/queues/fast", json={})
    await admin.put("/api/v1/jobs/a", json=a_document(queue="fast"))

    assert (await admin.delete("/api/v1/queues/fast")).status_code == 409
    assert (await admin.delete("/api/v1/queues/default")).status_code == 409


async def test_what_the_config_file_sets_is_read_only(service, admin):
    await service.ledger.put_queue(QueueSettings(name="fixed", is_configured=True))
    await service.ledger.put_tenant(TenantSettings(name="fixed", is_configured=True))

    for method, path in [("PUT", "queues"), ("DELETE", "queues"), ("PUT", "tenants")]:
        answer = await admin.request(method, f"/api/v1/{path}/fixed", json={} if method == "PUT" else None)
        assert answer.status_code == 409
        assert "[" in answer.json()["error"]["cure"]
    assert (await admin.post("/api/v1/queues/fixed:pause")).json()["paused"]


@pytest.mark.parametrize("settings", [{"weight": 0}, {"weight": "2"}, {"running_max": -1}, {"colour": "red"}])
async def test_wrong_settings_of_a_queue_are_refused(admin, settings):
    answer = await admin.put("/api/v1/queues/fast", json=settings)

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == next(iter(settings))


async def test_a_pool_shows_what_it_has_and_is_paused_and_resumed(service, admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    await service.claim()
    pool = (await admin.get("/api/v1/pools")).json()["pools"][0]
    paused = (await admin.post("/api/v1/pools/local:pause")).json()
    resumed = (await admin.post("/api/v1/pools/local:resume")).json()

    assert (pool["slots"], pool["running"], pool["idle"], pool["owner"]) == (4, 1, 3, "test")
    assert [paused["paused"], resumed["paused"]] == [True, False]


async def test_a_check_is_answered_by_the_owner(service, admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    await service.claim()
    asked = service.ledger.subscribe("pool:local")
    asking = asyncio.create_task(admin.post("/api/v1/pools/local:check"))
    await asked.wait(10)
    pending = await service.ledger.list_operations("local")
    await service.ledger.finish_operation(service._fence, pending[0].id, {"ok": True})
    answer = await asyncio.wait_for(asking, 10)

    assert answer.status_code == 200
    assert answer.json()["result"] == {"ok": True}


async def test_without_an_owner_a_check_is_kept_for_one(admin):
    answer = await admin.post("/api/v1/pools/local:check")
    operation = answer.json()
    kept = await admin.get(f"/api/v1/pools/local/operations/{operation['id']}")

    assert answer.status_code == 202
    assert kept.json() == operation


async def test_machines_are_those_of_the_ledgers_rows(service, admin):
    assert (await admin.get("/api/v1/machines")).json() == {"machines": []}
    name = await service.machine()
    [machine] = (await admin.get("/api/v1/machines")).json()["machines"]
    assert (machine["name"], machine["pool"], machine["state"]) == (name, "local", "ready")
    assert (machine["slots"], machine["held"], machine["facts"]) == (2, 0, {"zone": "one"})
    assert (await admin.get(f"/api/v1/machines/{name}")).json() == machine


async def test_a_machine_is_drained_and_taken_back(service, admin):
    assert (await admin.post("/api/v1/machines/m:drain")).status_code == 404
    name = await service.machine()
    drained = await admin.post(f"/api/v1/machines/{name}:drain")
    assert (drained.status_code, drained.json()["state"]) == (200, "ready")
    assert drained.json()["drain_asked_at"] is not None
    back = await admin.post(f"/api/v1/machines/{name}:undrain")
    assert (back.status_code, back.json()["drain_asked_at"]) == (200, None)
    lines = (await admin.get("/api/v1/audit")).json()["lines"]
    assert [(line["action"], line["subject"]) for line in lines[:2]] == [
        ("undrain", f"machine {name}"),
        ("drain", f"machine {name}"),
    ]


async def test_a_machine_that_ends_is_not_taken_back(service, admin):
    name = await service.machine()
    fence = await service.own()
    for seen, to in (("ready", "draining"), ("draining", "ending")):
        assert await service.ledger.change_machine(
            fence, name, seen=MachineState(seen), to=MachineState(to), facts={}
        )
    answer = await admin.post(f"/api/v1/machines/{name}:undrain")
    assert answer.status_code == 409
    assert answer.json()["error"]["message"] == f"machine '{name}' is ending already"


async def test_metrics_are_text(admin):
    answer = await admin.get("/metrics")

    assert answer.text == "runyard_up 1\n"
    assert answer.headers["Content-Type"].startswith("text/plain")
