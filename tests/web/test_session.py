import httpx2
import pytest

from tests.api.world import Service
from tests.web.browsing import send, signed_in


async def test_who_is_not_signed_in_gets_the_form_and_comes_back_after_it(service: Service):
    async with service.client(None) as client:
        first = await client.get("/jobs?state=queued")
        assert first.status_code == 303
        assert first.headers["location"] == "/sign-in?next=%2Fjobs%3Fstate%3Dqueued"
        form = await client.get(first.headers["location"])
        assert 'name="token"' in form.text
        done = await client.post(
            first.headers["location"],
            data={"token": await service.token()},
            headers={"Sec-Fetch-Site": "same-origin"},
        )
        assert done.headers["location"] == "/jobs?state=queued"
        assert (await client.get(done.headers["location"])).status_code == 200


async def test_a_wrong_token_is_said_to_be_one(service: Service):
    async with service.client(None) as client:
        answer = await send(client, "/sign-in", token="ry_wrong")
        assert answer.status_code == 401
        assert "unknown, revoked or expired" in answer.text


@pytest.mark.parametrize(
    "target", ["//evil.test/", "https://evil.test/", "/\\evil.test", "javascript:alert(1)"]
)
async def test_after_signing_in_nobody_is_sent_to_another_site(service: Service, target: str):
    async with service.client(None) as client:
        fields = {"token": await service.token()}
        answer = await client.post(
            "/sign-in", params={"next": target}, data=fields, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert answer.headers["location"] == "/"


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(service: Service):
    async with service.client(None) as client:
        answer = await send(client, "/sign-in", token=await service.token())
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie


async def test_a_session_is_no_good_for_the_api(service: Service, pages: httpx2.AsyncClient):
    secret = pages.cookies["runyard_session"]
    async with service.client(secret) as client:
        assert (await client.get("/api/v1/jobs")).status_code == 401


async def test_a_session_ends_when_its_token_is_revoked(service: Service, api: httpx2.AsyncClient):
    async with service.client(None) as client:
        await signed_in(client, await service.token(id="mine"))
        assert (await client.get("/")).status_code == 200
        assert (await api.delete("/api/v1/tokens/mine")).status_code == 204
        assert (await client.get("/")).status_code == 303


async def test_a_session_is_listed_and_revoked_like_a_token(
    pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    tokens = (await api.get("/api/v1/tokens")).json()["tokens"]
    [session] = [one for one in tokens if one["kind"] == "session"]
    await api.delete(f"/api/v1/tokens/{session['id']}")
    assert (await pages.get("/")).status_code == 303


async def test_signing_out_ends_the_session(service: Service, pages: httpx2.AsyncClient):
    kept = pages.cookies["runyard_session"]
    await send(pages, "/sign-out")
    async with service.client(None, cookies={"runyard_session": kept}) as client:
        assert (await client.get("/")).status_code == 303


async def test_a_session_is_over_after_its_time(service: Service, pages: httpx2.AsyncClient):
    service.clock.shift_s = 12 * 3600.0 + 1
    assert (await pages.get("/")).status_code == 303


async def test_a_link_signs_in_once(service: Service, api: httpx2.AsyncClient):
    path = (await api.post("/api/v1/sign-in-links")).json()["path"]
    async with service.client(None) as client:
        asked = await client.get(path)
        assert asked.status_code == 200  # a preview of the link does not use it up
        assert (await send(client, path)).status_code == 303
        assert (await client.get("/")).status_code == 200
    async with service.client(None) as other:
        again = await send(other, path)
        assert again.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.test"}, {}],
)
async def test_what_another_sites_page_sends_is_refused(
    service: Service, pages: httpx2.AsyncClient, headers: dict[str, str]
):
    answer = await pages.post("/queues/default/pause", headers=headers)
    assert answer.status_code == 403
    queue = await service.ledger.get_queue("default")
    assert queue is not None
    assert not queue.settings.is_paused


async def test_an_old_browser_is_believed_by_its_origin(service: Service, pages: httpx2.AsyncClient):
    answer = await pages.post("/queues/default/pause", headers={"Origin": "http://runyard.test"})
    assert answer.status_code == 303


async def test_a_reader_changes_nothing(service: Service):
    async with service.client(None) as client:
        await signed_in(client, await service.token("read"))
        assert "Pause" not in (await client.get("/queues/default")).text
        assert (await send(client, "/queues/default/pause")).status_code == 403


async def test_a_tenants_session_sees_its_own_alone(service: Service, api: httpx2.AsyncClient):
    for tenant in ("mine", "theirs"):
        await api.put(f"/api/v1/jobs/of-{tenant}", json={"steps": [{"run": "true"}], "tenant": tenant})
    async with service.client(None) as client:
        await signed_in(client, await service.token("operate", tenants=("mine",)))
        jobs = (await client.get("/jobs")).text
        assert "of-mine" in jobs
        assert "of-theirs" not in jobs
        assert (await client.get("/jobs/of-theirs")).status_code == 404
        assert (await client.get("/audit")).status_code == 403
        assert "theirs" not in (await client.get("/queues")).text
