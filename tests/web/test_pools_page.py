import httpx2

from runyard.model.attempt import Progress
from runyard.model.operation import OperationKind
from tests.api.world import Service, a_document
from tests.web.browsing import send


async def test_each_slot_says_what_it_runs_now(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    for name in ("first", "second"):
        await api.put(f"/api/v1/jobs/{name}", json=a_document())
    one = await service.claim(slot=0)
    other = await service.claim(slot=1, is_running=False)
    await service.tell(other.attempt.key, Progress(text="cloning", at=0.0))
    text = (await pages.get("/pools/local")).text
    runs = text[text.index('id="running"') : text.index('id="recent"')]
    assert runs.index(f"/jobs/{one.job.id}") < runs.index(f"/jobs/{other.job.id}")
    assert "cloning" in runs
    assert "2 in use" in text


async def test_giving_a_pool_up_needs_its_name(service: Service, pages: httpx2.AsyncClient):
    text = (await pages.get("/pools/local")).text
    assert "Declare its host dead" in text
    answer = await send(pages, "/pools/local/forget", confirm="yes")
    assert answer.status_code == 422
    assert "write the pool&#39;s name" in answer.text
    await service.own()
    assert "Declare its host dead" not in (await pages.get("/pools/local")).text


async def test_machines_have_a_panel_only_where_there_are_some(service: Service, pages: httpx2.AsyncClient):
    assert "Machines" not in (await pages.get("/pools/local")).text
    name = await service.machine()
    assert f'href="/machines/{name}"' in (await pages.get("/pools/local")).text


async def test_the_last_check_stays_on_the_pools_page(service: Service, pages: httpx2.AsyncClient):
    assert "Last check" not in (await pages.get("/pools/local")).text
    asked = await service.ledger.request_operation("local", OperationKind.CHECK_POOL, {})
    finding = {"name": "git", "ok": False, "message": "it is not there", "cure": "install git"}
    result = {"ok": False, "findings": [finding]}
    await service.ledger.finish_operation(await service.own(), asked.id, result)
    text = (await pages.get("/pools/local")).text
    assert "Last check" in text
    assert "it is not there" in text
    assert "install git" in text


async def test_a_machine_says_what_it_holds(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    name = await service.machine()
    await api.put("/api/v1/jobs/mine", json=a_document())
    key = (await service.claim()).attempt.key
    assert await service.ledger.bind_attempt(await service.own(), key, name)
    text = (await pages.get(f"/machines/{name}")).text
    assert "1 of 2 in use" in text
    assert "/jobs/mine?" in text
    assert "<dt>zone</dt><dd>one</dd>" in text
    assert (await pages.get("/machines/none")).status_code == 404


async def test_a_machine_is_drained_by_a_button_and_taken_back(service: Service, pages: httpx2.AsyncClient):
    name = await service.machine()
    assert "An operator drains it" not in (await pages.get(f"/machines/{name}")).text
    assert (await send(pages, f"/machines/{name}/drain")).status_code == 303
    text = (await pages.get(f"/machines/{name}")).text
    assert "An operator drains it" in text
    assert f'action="/machines/{name}/undrain"' in text
    await send(pages, f"/machines/{name}/undrain")
    assert "An operator drains it" not in (await pages.get(f"/machines/{name}")).text


async def test_a_queue_shows_the_fair_share_beside_what_each_tenant_has(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await send(pages, "/tenants/big", weight="3")
    for number in range(2):
        for tenant in ("big", "small"):
            await api.put(f"/api/v1/jobs/{tenant}-{number}", json=a_document(tenant=tenant))
    await service.claim()
    text = (await pages.get("/queues/default")).text
    shares = text[text.index('id="shares"') :]
    assert "75 %" in shares
    assert "25 %" in shares
    assert "100 %" in shares


async def test_an_empty_queue_is_deleted_and_a_busy_one_is_not(
    pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await send(pages, "/queues/new", name="ci")
    await api.put("/api/v1/jobs/mine", json=a_document(queue="ci"))
    assert "Delete the queue" not in (await pages.get("/queues/ci")).text
    assert (await send(pages, "/queues/ci/delete")).status_code == 409
    await api.post("/api/v1/jobs/mine:cancel")
    assert "Delete the queue" in (await pages.get("/queues/ci")).text
    assert (await send(pages, "/queues/ci/delete")).headers["location"] == "/queues"
    assert (await pages.get("/queues/ci")).status_code == 404
